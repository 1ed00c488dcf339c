"""The published JSON schema of summary.json, made from its type: ``python -m lifelong.records.schema > docs/schemas/summary-2.json``."""

import json
from typing import Any

from lifelong.records.renames import SCHEMA_VERSION
from lifelong.records.run import RunRecord


# `Any`: JSON schema, whose form is its own standard.
def summary_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of summary.json, as this version writes it.

    A key that it does not name is allowed: methods record their own.
    """
    made = _untitled(RunRecord.model_json_schema(by_alias=True))
    # Files of the form before this one do not have it; what is written now does.
    made["required"] = ["schema_version", *made["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"summary.json of a run, schema {SCHEMA_VERSION}"}
    return head | made


def _untitled(part: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names; a property may be called so."""
    if isinstance(part, dict):
        return {key: _untitled(value) for key, value in part.items() if not (key == "title" and isinstance(value, str))}
    return [_untitled(item) for item in part] if isinstance(part, list) else part


if __name__ == "__main__":
    print(json.dumps(summary_schema(), indent=1, ensure_ascii=False))
