"""What the records of a run have in common: typed attributes, which are also the keys of a mapping, as in the JSON file."""

import math
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lifelong.records.renames import RENAMED, Kind

R = TypeVar("R", bound="Record")

Number = float | None
"""A number, or null for one that is not known."""

Share = Annotated[float, Field(ge=0, le=1)] | None
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Kept(BaseModel):
    """A JSON object: strictly of the kinds that are named, whatever else it holds."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


# `Any`: a mapping's values are of as many kinds as the attributes, whose types say which.
class Record(Kept, MutableMapping[str, Any]):
    """A record with typed attributes; an attribute that was not recorded is None or its default.

    It is a mapping, too, of the keys that were recorded: ``record["name"]``, ``"name" in record``, ``dict(record)``; keys that no
    attribute has (of methods of your own) are there as well. `to_dict` returns plain values, for JSON. A key of an earlier version is
    answered by its new name, with a DeprecationWarning.
    """

    KIND: ClassVar[Kind | None] = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON says: plain values all the way down, and only what was recorded."""
        return self.model_dump(exclude_unset=True, by_alias=True)

    def _attribute(self, key: str) -> str | None:
        """Return the attribute of a key; None for a key that no attribute has."""
        if key in type(self).model_fields:
            return key if type(self).model_fields[key].alias in (None, key) else None
        return next((name for name, field in type(self).model_fields.items() if field.alias == key), None)

    def _renamed(self, key: object) -> str | None:
        """Return the new name of a key of an earlier version."""
        return RENAMED[self.KIND].get(key) if self.KIND is not None and isinstance(key, str) else None

    def __getitem__(self, key: str) -> Any:
        name = self._attribute(key)
        if name is not None and name in self.model_fields_set:
            return getattr(self, name)
        if name is None and key in (self.model_extra or {}):
            return (self.model_extra or {})[key]
        new = self._renamed(key)
        if new is None or new not in self:
            raise KeyError(key)
        warnings.warn(f"the key '{key}' is now '{new}'", DeprecationWarning, stacklevel=2)
        return self[new]

    def __setitem__(self, key: str, value: Any) -> None:
        name = self._attribute(key)
        setattr(self, name or key, value if name is None else _adapter(type(self), name).validate_python(value))

    def __delitem__(self, key: str) -> None:
        if key not in list(self):
            raise KeyError(key)
        name = self._attribute(key)
        if name is None:
            delattr(self, key)
            return
        setattr(self, name, type(self).model_fields[name].get_default(call_default_factory=True))
        self.model_fields_set.discard(name)

    def __contains__(self, key: object) -> bool:
        return key in list(self) or self._renamed(key) in list(self)

    # A mapping yields keys; pydantic's models yield pairs, on which nothing here depends.
    def __iter__(self) -> Iterator[str]:  # ty: ignore[incompatible-method-override]
        fields = type(self).model_fields
        yield from (field.alias or name for name, field in fields.items() if name in self.model_fields_set)
        yield from self.model_extra or {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self.to_dict() == other.to_dict()
        return self.to_dict() == plain(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None

    def __or__(self: R, other: Mapping[str, Any]) -> R:
        changed = self.model_copy()
        changed |= other
        return changed

    def __ior__(self: R, other: Mapping[str, Any]) -> R:
        self.update(other)
        return self


@cache
def _adapter(of: type[Record], name: str) -> TypeAdapter:
    """Return what makes a field's value of plain ones."""
    field = of.model_fields[name]
    return TypeAdapter(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)  # ty: ignore[invalid-type-form, invalid-argument-type]


# `Any`: whatever JSON can say, and what is to be made so.
def plain(value: Any) -> Any:
    """Return a value as JSON can say it: records become dicts, tuples lists, NaN and infinities null."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value))
        # Long lists of numbers take seconds, item by item.
        if kinds <= {int, str, bool} or (kinds == {float} and all(map(math.isfinite, value))):
            return list(value)
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def said(error: ValidationError) -> str:
    """Return what is wrong in one line, with the place."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"'{where}': {what[:1].lower()}{what[1:]}" if where else what[:1].lower() + what[1:]
