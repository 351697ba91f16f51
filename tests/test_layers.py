"""Who may import whom (ARCHITECTURE, section 4), checked on the parsed imports of every module."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("nas", "latency_models", "search_spaces", "benchmarks", "tests")

# Package → packages of ours it may import, itself and nas.core apart. Only nas.pipeline joins them; the command line
# is above it.
_BELOW_PIPELINE = (
    "nas.config", "nas.runs", "nas.search", "nas.models", "nas.training", "nas.quality", "nas.export", "nas.report",
    "search_spaces", "latency_models",
)  # fmt: skip
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "nas.core": (),
    "search_spaces": (),
    "latency_models": (),
    "nas.config": ("nas.training.options", "nas.quality.options"),  # the YAML's own settings, without torch
    "nas.runs": (),
    "nas.search": (),
    "nas.models": ("search_spaces",),
    "nas.training": ("nas.models", "search_spaces"),
    "nas.quality": ("nas.training", "nas.models", "search_spaces"),
    "nas.export": ("nas.models", "search_spaces"),
    "nas.report": ("nas.runs",),
    "nas.pipeline": _BELOW_PIPELINE,
    "nas.cli": ("nas.pipeline", *_BELOW_PIPELINE),
    "nas": ("nas.cli",),  # nas/__init__.py and nas/__main__.py
}

TORCH_PACKAGES = ("nas.models", "nas.training", "nas.export", "nas.quality")
# Library → packages or modules that may import it when they are loaded.
AT_MODULE_LEVEL: dict[str, tuple[str, ...]] = {
    "torch": TORCH_PACKAGES,
    "diffusers": (  # they subclass or assemble its parts
        "nas.models.unet",
        "nas.models.temporal",
        "nas.models.build",
        "nas.training.pipeline",
    ),
    "optuna": ("nas.search.engines.optuna_samplers", "nas.search.optuna_mirror"),
    "numpy": ("latency_models", "nas.search", "nas.report", *TORCH_PACKAGES),
    **dict.fromkeys(
        ("av", "coremltools", "ray", "pandas", "sklearn", "scipy", "plotly", "jinja2", "accelerate", "matplotlib"), ()
    ),
}
# Library → packages or modules that may import it at all.
ANYWHERE: dict[str, tuple[str, ...]] = {
    "ray": ("nas.search.executors.ray_cluster",),
    "optuna": ("nas.search.engines.optuna_samplers", "nas.search.optuna_mirror"),
    "coremltools": ("nas.export", "latency_models.backends"),
}
CORE_LIBRARIES = {"yaml", "pydantic", "pydantic_core"}


@dataclass(frozen=True)
class Import:
    """One import: of ``target`` by ``module``; ``loading`` when it happens as the module loads."""

    module: str
    target: str
    line: int
    loading: bool
    typing_only: bool
    relative: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for package in ("nas", "latency_models", "search_spaces")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports_of(module: str, tree: ast.AST) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, *, loading: bool, typing_only: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner_loading, inner_typing = loading, typing_only
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                inner_loading = False
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inner_typing = True
            for target, relative in targets(child):
                found.append(Import(module, target, child.lineno, loading and not typing_only, typing_only, relative))
            visit(child, loading=inner_loading, typing_only=inner_typing)

    visit(tree, loading=True, typing_only=False)
    return found


def targets(node: ast.AST) -> list[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        return [(alias.name, False) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        source = node.module or ""
        submodules = [f"{source}.{alias.name}" for alias in node.names if f"{source}.{alias.name}" in SOURCES]
        return [(target, node.level > 0) for target in submodules or [source]]
    return []


IMPORTS = [
    one for module, path in SOURCES.items() for one in imports_of(module, ast.parse(path.read_text(encoding="utf-8")))
]


def package_of(module: str) -> str:
    return max((name for name in MAY_IMPORT if within(module, (name,))), key=len)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def listed(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_parser_sees_every_form_of_import() -> None:
    code = (
        "import numpy as np, os.path\nfrom nas.core import files\nfrom nas.core.cost import Budget\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "class A:\n    import ray\ndef f():\n    import pandas\ntry:\n    import yaml\nexcept ImportError:\n    pass\n"
        "from . import sibling\n"
    )
    found = {one.target: (one.loading, one.relative) for one in imports_of("some.module", ast.parse(code))}
    assert found == {
        "numpy": (True, False),
        "os.path": (True, False),
        "nas.core.files": (True, False),
        "nas.core.cost": (True, False),
        "typing": (True, False),
        "torch": (False, False),
        "ray": (True, False),
        "pandas": (False, False),
        "yaml": (True, False),
        "": (True, True),
    }


def test_every_module_belongs_to_a_listed_package() -> None:
    stray = [name for name in SOURCES if package_of(name) == "nas" and name not in ("nas", "nas.__main__")]
    assert stray == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    allowed = (package, "nas.core", *MAY_IMPORT[package])
    wrong = [
        one
        for one in IMPORTS
        if package_of(one.module) == package
        and within(one.target, OURS)
        and one.target != "nas"  # its lazy top: version and public names
        and package_of(one.target) not in allowed
        and one.target not in allowed
    ]
    assert not wrong, listed(wrong)


def test_nothing_imports_benchmarks_or_tests() -> None:
    wrong = [one for one in IMPORTS if within(one.target, ("benchmarks", "tests"))]
    assert not wrong, listed(wrong)


def test_imports_are_absolute() -> None:
    wrong = [one for one in IMPORTS if one.relative]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("library", AT_MODULE_LEVEL)
def test_heavy_library_loads_only_where_it_may(library: str) -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.loading and within(one.target, (library,)) and not within(one.module, AT_MODULE_LEVEL[library])
    ]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("library", ANYWHERE)
def test_library_with_one_home_is_used_only_there(library: str) -> None:
    wrong = [
        one
        for one in IMPORTS
        if not one.typing_only and within(one.target, (library,)) and not within(one.module, ANYWHERE[library])
    ]
    assert not wrong, listed(wrong)


def test_kernel_loads_only_the_standard_library_yaml_and_pydantic() -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.loading
        and package_of(one.module) == "nas.core"
        and not within(one.target, ("nas.core",))
        and one.target.split(".")[0] not in CORE_LIBRARIES | sys.stdlib_module_names
    ]
    assert not wrong, listed(wrong)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for one in IMPORTS:
        if not one.typing_only and one.target in SOURCES and one.target != one.module:
            edges.setdefault(one.module, set()).add(one.target)
    assert first_circle(edges) is None


def test_circle_is_found() -> None:
    assert first_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert first_circle({"a": {"b", "c"}, "b": {"c"}}) is None


def first_circle(edges: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(edges.get(module, ())):
            circle = walk(target, [*path, module])
            if circle:
                return circle
        done.add(module)
        return None

    for module in sorted(edges):
        circle = walk(module, [])
        if circle:
            return circle
    return None
