"""Dataclass ⇄ plain data through pydantic; every artefact starts with its schema name and version."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from nas.core.architecture import Architecture
from nas.core.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")


def to_data(value: Any) -> Any:
    """Return ``value`` as plain lists, dicts and scalars, ready for JSON."""
    if isinstance(value, Architecture):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(item) for item in value]
    return value


def from_data(kind: type[T], data: Any, *, where: str = "data", partial: bool = False) -> T:
    """Rebuild a frozen dataclass from ``to_data``.

    Args:
        kind: The dataclass, or a container of some.
        data: Plain data.
        where: File and record, for messages.
        partial: Ignore fields that ``kind`` does not have; for readers that need only some.

    Raises:
        InputError: A field is missing, unknown or of the wrong type; all faults are named.
    """
    extra: Literal["ignore", "forbid"] = "ignore" if partial else "forbid"
    try:
        return cast("T", _adapter(cast("Hashable", kind)).validate_python(data, extra=extra))
    except ValidationError as error:
        faults = "; ".join(_fault(item) for item in error.errors()[:8])
        raise InputError(f"{where}: not a {kind.__name__}: {faults}") from error


def with_schema(name: str, version: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``"schema": "nas/<name>/<version>"`` in front of an artefact."""
    return {"schema": f"nas/{name}/{version}", **body}


def check_schema(data: Any, name: str, version: int, *, where: str) -> dict[str, Any]:
    """Return the artefact without its schema line.

    Raises:
        InputError: The schema line is missing or names another kind or version.
    """
    expected = f"nas/{name}/{version}"
    found = data.get("schema") if isinstance(data, dict) else None
    if found != expected:
        raise InputError(
            f"{where}: schema is {found!r}, this version reads {expected!r}",
            hint="the file was written by another version or is not this kind of file",
        )
    return {key: value for key, value in data.items() if key != "schema"}


def _fault(item: ErrorDetails) -> str:
    """Return ``field: what is allowed, got what``; a whole object is not repeated."""
    given = item["input"]
    got = "" if isinstance(given, (dict, list, tuple)) else f", got {given!r}"
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}{got}"


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", kind))
