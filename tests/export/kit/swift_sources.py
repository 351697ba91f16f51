"""The Swift sources read through tree-sitter: there is no Swift compiler with Core ML outside macOS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import tree_sitter
import tree_sitter_swift

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(str(files("nas.export.kit").joinpath("swift")))
LIBRARY = ROOT / "runner" / "Sources" / "KitRunner"
_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))


@dataclass(frozen=True)
class StoredProperty:
    """A property of a struct: its JSON key, the name of its type or of its elements' type, whether it may be absent."""

    key: str
    type_name: str
    optional: bool


def tree(source: bytes) -> tree_sitter.Node:
    return _PARSER.parse(source).root_node


def faults(source: bytes) -> list[str]:
    """Places that the grammar cannot read, as ``line 3: …``."""
    return [
        f"line {node.start_point.row + 1}: {text(node)[:60]!r}"
        for node in nodes(tree(source))
        if node.type == "ERROR" or node.is_missing
    ]


def structs(source: bytes) -> dict[str, list[StoredProperty]]:
    """Stored properties of every struct of a file, by the struct's name."""
    return {
        text(node.child_by_field_name("name")): [*_stored(node.child_by_field_name("body"))]
        for node in nodes(tree(source))
        if node.type == "class_declaration" and node.children[0].type == "struct"
    }


def string_literals(source: bytes) -> set[str]:
    return {text(node) for node in nodes(tree(source)) if node.type == "line_str_text"}


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node: tree_sitter.Node | None) -> str:
    assert node is not None
    assert node.text is not None
    return node.text.decode()


def _stored(body: tree_sitter.Node | None) -> Iterator[StoredProperty]:
    assert body is not None
    for node in body.children:
        static = any(child.type == "modifiers" for child in node.children)
        if node.type != "property_declaration" or static or node.child_by_field_name("computed_value"):
            continue
        kinds = [child for child in nodes(node) if child.type == "type_identifier"]
        optional = any(child.type == "optional_type" for child in nodes(node))
        name = text(node.child_by_field_name("name"))
        yield StoredProperty(_snake_case(name), text(kinds[0]) if kinds else "String", optional)


def _snake_case(name: str) -> str:
    """Foundation's ``convertToSnakeCase``, for names without runs of capitals."""
    assert not re.search("[A-Z]{2}", name), f"{name!r} has a run of capitals"
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)
