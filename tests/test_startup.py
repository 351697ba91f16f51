"""What a start may load: help and configuration errors must not wait for heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "coremltools", "ray", "diffusers", "pandas", "numpy", "optuna", "sklearn", "scipy", "plotly", "jinja2",
    "accelerate", "av", "matplotlib", "transformers",
)  # fmt: skip

_HELP = """
from nas.cli.main import main
for arguments in (["--help"], ["--version"]):
    try:
        main(arguments, prog_name="nas")
    except SystemExit as end:
        assert not end.code, end.code
"""


def heavy_after(code: str) -> list[str]:
    """Run ``code`` in a fresh interpreter and return the heavy libraries it loaded."""
    report = f"\nimport json, sys\nprint('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def test_check_sees_a_heavy_library() -> None:
    assert heavy_after("import numpy") == ["numpy"]


@pytest.mark.parametrize(
    "code",
    [
        "import nas; assert nas.__version__",
        "import nas.cli.main",
        "import nas.config.run",
        "import nas.core.protocols, nas.core.pareto, nas.core.files, nas.core.schema, nas.core.provenance",
        "import nas.runs",
        "import nas; nas.Architecture, nas.ParetoFront, nas.Workload",
        "import search_spaces; search_spaces.get('snapgen_v')",
        "import nas.search; import nas.search.engines.random_search",
    ],
)
def test_import_loads_nothing_heavy(code: str) -> None:
    assert heavy_after(code) == []


def test_help_and_version_load_nothing_heavy() -> None:
    assert heavy_after(_HELP) == []


def test_package_itself_loads_none_of_our_modules() -> None:
    code = (
        "import nas, sys, json; "
        "assert [name for name in sys.modules if name.startswith(('nas.', 'latency_models', 'search_spaces'))] == []"
    )
    assert heavy_after(code) == []
