"""Keys that have another name than in earlier versions: the one place where old records become new ones.

Applied to a record right after its digest was checked, so that everything behind it knows one name per quantity. A record that has
the new name already is left as it is.
"""

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["summary", "task", "distances", "decision"]
"""summary.json; a task's record, in it, in results.jsonl and in saved states; distances.json; one of its decisions."""

RENAMED: dict[Kind, dict[str, str]] = {
    "summary": {"task_free": "task_agnostic"},
    "task": {"distances": "divergences"},  # Eq. 4; "distances" are those of Eq. 6
    "distances": {"raw": "divergences"},
    "decision": {"action": "decision"},
}
"""Old name -> new name."""

SCHEMA_VERSION: Literal[2] = 2
"""Of the form of summary.json; raised with every name that changes. 1, which the first versions did not write down, had the old names."""

PARTS: dict[Kind, dict[str, Kind]] = {"summary": {"tasks": "task"}, "distances": {"decisions": "decision"}}
"""The lists of records in a record."""


def renamed(kind: Kind, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record under the names of this version, its keys in their order.

    Args:
        kind: of which it is.
        record: of this version or of an earlier one; values of a wrong kind are left to whoever checks them.
    """
    names = {old: new for old, new in RENAMED[kind].items() if new not in record}
    found: dict[str, Any] = {"schema_version": SCHEMA_VERSION} if kind == "summary" else {}
    found |= {names.get(key, key): value for key, value in record.items()}
    for part, its in PARTS.get(kind, {}).items():
        if isinstance(found.get(part), list):
            found[part] = [renamed(its, item) if isinstance(item, Mapping) else item for item in found[part]]
    return found


# `Any`: a tree of tensors and plain values.
def renamed_state(tree: Any) -> Any:
    """Return a run's saved state under the names of this version."""
    if not isinstance(tree, dict):
        return tree
    found = dict(tree)
    if isinstance(found.get("entries"), list):
        found["entries"] = [renamed("task", entry) if isinstance(entry, dict) else entry for entry in found["entries"]]
    if isinstance(found.get("summary"), dict):
        found["summary"] = renamed("summary", found["summary"])
    return found
