"""Pydantic's faults in the user's words: place, allowed values and the nearest correct spelling, all at once."""

from __future__ import annotations

import json
from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from nas.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from nas.config.document import Document, Path

M = TypeVar("M", bound=BaseModel)

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a section",
    "model_type": "a section",
    "model_attributes_type": "a section",
    "dataclass_type": "a section",
    "list_type": "a list",
    "tuple_type": "a list",
}


def validate(document: Document, model: type[M]) -> M:
    """Build ``model`` from a document.

    Raises:
        ConfigError: With every fault of the file, each with its line.
    """
    problems = list(document.problems)
    result: M | None = None
    try:
        # Strict JSON mode lets sections be dataclasses and lists be tuples, and converts nothing else.
        result = model.model_validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        problems += [_problem(item, document, model) for item in error.errors() if not _follows(item)]
    if problems or result is None:
        raise faults(document.source, problems)
    return result


def _follows(item: ErrorDetails) -> bool:
    """Tell whether a list only counts as too short because of faults in its items, which are named themselves."""
    given = item["input"]
    return item["type"] == "too_short" and isinstance(given, list) and len(given) >= item["ctx"]["min_length"]


def faults(source: str, problems: list[Problem]) -> ConfigError:
    """Return the error that lists ``problems`` of ``source`` in the order of their places."""
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))
    count = f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    lines = [f"{_where(problem):>9}  {problem.path}: {problem.message}" for problem in ordered]
    return ConfigError("\n".join([f"{source}: {count}", *lines]), problems=tuple(ordered))


def _where(problem: Problem) -> str:
    return f"{problem.line}:{problem.column}" if problem.line else "--set" if problem.column == 0 else "-"


def _problem(item: ErrorDetails, document: Document, model: type[BaseModel]) -> Problem:
    path = _document_path(item["loc"], document.data)
    place = document.place(path)
    return Problem(
        message=_message(item, path, model, document.data),
        path=".".join(map(str, path)) or "file",
        file=document.source,
        line=place[0] if place else None,
        column=place[1] if place else None,
    )


def _document_path(location: tuple[int | str, ...], data: Any) -> Path:
    """Drop the union tags that pydantic puts into a location; a missing or unknown last key stays."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        if _holds(data, part):
            data = data[part]
        elif index < len(location) - 1 or (isinstance(data, list) and isinstance(part, str)):
            continue  # a tag, which may be the name of the list that was just entered
        path.append(part)
    return tuple(path)


def _holds(data: Any, part: int | str) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _message(item: ErrorDetails, path: Path, model: type[BaseModel], data: Any) -> str:
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "unknown key" + _suggestion(str(path[-1]), _known_keys(model, path[:-1], data))
    if kind in ("missing", "missing_argument"):
        return "is missing"
    if kind == "union_tag_not_found":
        return f"needs a 'type', one of {_tags(model, path, data)}"
    if kind == "union_tag_invalid":
        expected = [tag.strip("' ") for tag in str(context.get("expected_tags", "")).split(",")]
        return f"type must be one of {', '.join(expected)}, got {context.get('tag')!r}" + _suggestion(
            str(context.get("tag")), expected
        )
    if kind in ("literal_error", "enum"):
        expected = [text.strip("' ") for text in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(expected)}, got {_show(given)}" + _suggestion(str(given), expected)
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, got {_show(given)}"
    if kind == "finite_number":
        return f"must be a finite number, got {_show(given)}"
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        need = f"at least {least}" if most is None or kind == "too_short" else f"at most {most}"
        return f"must have {need} items, got {context.get('actual_length')}"
    limits = {
        "greater_than_equal": "at least",
        "greater_than": "above",
        "less_than_equal": "at most",
        "less_than": "below",
    }
    if kind in limits:
        limit = next(iter(context.values()))
        return f"must be {limits[kind]} {limit}, got {given!r}"
    return f"{item['msg'].removeprefix('Value error, ')}" + ("" if isinstance(given, dict) else f", got {_show(given)}")


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return f"true/false {str(value).lower()}"
    if isinstance(value, str):
        return f"text {value!r}"
    if value is None:
        return "nothing"
    return f"a section of {len(value)} keys" if isinstance(value, dict) else repr(value)


def _suggestion(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else (f"; known: {', '.join(known)}" if known else "")


def _known_keys(model: type[Any], path: Path, data: Any) -> list[str]:
    current: Any = model
    for part in path:
        data = data[part] if _holds(data, part) else None
        if isinstance(part, int):
            continue  # an item of a list, whose annotation names its items' section
        fields = _fields(current)
        if str(part) not in fields:
            return []
        current = _choose(_item(fields[str(part)]), data)
    return sorted(_fields(current))


def _item(annotation: Any) -> Any:
    """Return what a tuple holds, optional ones included; anything else as it is."""
    for kind in (annotation, *(get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ())):
        if get_origin(kind) is tuple:
            return get_args(kind)[0]
    return annotation


def _tags(model: type[Any], path: Path, data: Any) -> str:
    current: Any = model
    for part in path:
        current = _item(current) if isinstance(part, int) else _fields(_choose(current, data)).get(str(part), object)
        data = data[part] if _holds(data, part) else None
    found = [getattr(_fields(kind).get("type"), "__args__", ("?",))[0] for kind in _members(current)]
    return ", ".join(map(str, found))


def _fields(kind: Any) -> Mapping[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    if hasattr(kind, "__dataclass_fields__"):
        from typing import get_type_hints

        return get_type_hints(kind)
    return {}


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if _fields(kind)]
    return [annotation]


def _choose(annotation: Any, data: Any) -> Any:
    """Pick the union member that the ``type`` in the data names."""
    members = _members(annotation)
    tag = data.get("type") if isinstance(data, dict) else None
    for kind in members:
        if tag in getattr(_fields(kind).get("type"), "__args__", ()):
            return kind
    return members[0] if members else object
