"""YAML with the place of every key: duplicate keys are errors and ``1e-4`` is a number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from nas.core.errors import ConfigError, InputError, Problem

if TYPE_CHECKING:
    from pathlib import Path as FilePath

Path = tuple[str | int, ...]
Place = tuple[int, int]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 floats."""


# YAML 1.1 reads 1e-4 as text because it wants a dot; YAML 1.2's core schema does not.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)$|^[-+]?\.(?:inf|nan)$", re.IGNORECASE
    ),
    list("-+0123456789."),
)


@dataclass(slots=True)
class Document:
    """Plain data of a YAML file and where each value stands.

    ``places`` maps a path such as ``("budget", "latency_ms")`` to line and column of its key, both from 1.
    """

    data: Any
    source: str
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place | None:
        """Return the place of ``path``, or of its nearest parent."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return None


def read_document(path: FilePath) -> Document:
    """Read a YAML file.

    Raises:
        InputError: The file is missing or is not text.
        ConfigError: The file is not YAML, or holds something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist", hint="`nas init` writes a starter file") from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a YAML text file") from error
    return parse_document(text, source=str(path))


def parse_document(text: str, *, source: str) -> Document:
    """Parse YAML text; see ``read_document``."""
    document = Document(data=None, source=source)
    value, problem = _read(text, (), document)
    if problem is not None:
        raise ConfigError(f"{source}: not YAML: {problem.message}", problems=(problem,))
    document.data = {} if value is None else value
    if not isinstance(document.data, dict):
        raise ConfigError(f"{source}: must be a mapping of sections, got {type(document.data).__name__}")
    return document


def _read(text: str, path: Path, document: Document) -> tuple[Any, Problem | None]:
    """Return the data of YAML text that stands at ``path``, or what is wrong with it."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _build(loader, node, path, document), None
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"character {error.character!r} is not allowed"
        return None, Problem(message=message, file=document.source, line=line, column=column)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return None, Problem(
            message=str(error.problem),
            file=document.source,
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
        )
    except RecursionError:
        return None, Problem(message="values are nested too deep, or hold themselves", file=document.source)


def _construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """Return a node's value; PyYAML lets the faults of a wrong number or date through as they come."""
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        kind = node.tag.rpartition(":")[2]
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value!r} cannot be read as {kind}", node.start_mark
        ) from error


def _build(loader: yaml.SafeLoader, node: yaml.Node, path: Path, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(_construct(loader, key_node))
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            here = (*path, key)
            if key in result:
                name = ".".join(map(str, here))
                document.problems.append(
                    Problem(
                        message="key is given twice", path=name, file=document.source, line=place[0], column=place[1]
                    )
                )
            document.places[here] = place
            result[key] = _build(loader, value_node, here, document)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            here = (*path, index)
            document.places[here] = (item.start_mark.line + 1, item.start_mark.column + 1)
            items.append(_build(loader, item, here, document))
        return items
    return _construct(loader, node)


def apply_overrides(document: Document, overrides: tuple[str, ...]) -> None:
    """Apply ``a.b=c`` settings of the command line; values are read as YAML.

    Raises:
        ConfigError: A setting has no ``=`` or goes through a value that is not a section.
    """
    for setting in overrides:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ConfigError(f"--set {setting!r}: must look like section.key=value")
        target = document.data
        *parents, last = name.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {setting!r}: {parent!r} is a value, not a section")
        here = tuple(name.split("."))
        scratch = Document(data=None, source=f"--set {setting!r}")
        value, problem = _read(text, here, scratch)
        if problem is not None:
            raise ConfigError(f"--set {setting!r}: the value is not YAML: {problem.message}")
        document.problems += [replace(twice, file=None, line=None, column=0) for twice in scratch.problems]
        target[last] = value
        document.places.pop(here, None)
