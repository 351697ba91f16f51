"""``nas show`` and ``nas verify`` look at a run: they start none, and answer with one document."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from nas.cli.main import main
from nas.core.files import sha256_text
from nas.pipeline.context import Context, open_run
from nas.pipeline.stages import _inputs, _settings, chosen_stages
from tests.integration.small_run import SMALL_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL_RUN.replace("DIRECTORY", str(tmp_path / "runs")))
    return tmp_path / "small.yaml"


@contextmanager
def finishing(context: Context, name: str) -> Iterator[Path]:
    """Mark a stage done with whatever is put into its folder."""
    (stage,) = chosen_stages(context.config, (name,))
    inputs = _inputs(context.config, context.directory, stage)
    with context.directory.stage(name, inputs, settings=_settings(context.config, stage)) as folder:
        yield folder


@pytest.fixture
def context(config: Path) -> Context:
    """A run whose first stages are done, and empty."""
    context = open_run(str(config))
    for name in ("profile", "calibrate", "search", "train", "export"):
        with finishing(context, name):
            pass
    return context


@pytest.mark.parametrize("arguments", [("verify",), ("show",), ("show", "status")])
def test_looking_at_a_run_that_never_began_exits_3_and_writes_nothing(config: Path, arguments: tuple[str, ...]) -> None:
    verb, *rest = arguments
    result = invoke(verb, str(config), *rest, "--json")
    assert result.exit_code == 3
    error = json.loads(result.stdout)["error"]
    assert error["message"] == f"{config}: there is no run of these settings yet"
    assert error["hint"] == f"start it: nas run {config}"
    assert [path.name for path in config.parent.iterdir()] == ["small.yaml"]


def test_looking_by_the_yaml_finds_the_run_that_began(config: Path) -> None:
    begun = open_run(str(config)).directory.path
    result = invoke("show", str(config), "status", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["stages"]["profile"]["state"] == "pending"
    assert list(begun.parent.iterdir()) == [begun]


def test_a_check_that_fails_exits_5_with_one_document(context: Context) -> None:
    write_export(context, passed=False)
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 5
    document = json.loads(result.stdout)
    assert {check["name"]: check["passed"] for check in document["checks"]}["abc: runs"] is False
    assert document["error"]["kind"] == "verification"
    assert document["error"]["message"].endswith("checks failed: abc: runs")


def test_a_check_that_fails_is_printed_for_people_too(context: Context) -> None:
    write_export(context, passed=False)
    result = invoke("verify", str(context.directory.path))
    assert result.exit_code == 5
    assert "FAIL abc: runs: no" in result.stdout
    assert "checks failed: abc: runs" in result.stderr


def test_checks_that_hold_exit_0_with_one_document(context: Context) -> None:
    write_export(context, passed=True)
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 0
    assert all(check["passed"] for check in json.loads(result.stdout)["checks"])


def test_a_changed_setting_is_stale_and_exits_3_with_one_document(context: Context) -> None:
    resolved = context.path("resolved.yaml")
    resolved.write_text(resolved.read_text().replace("seed: 3", "seed: 4"))
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    for name in ("profile", "calibrate", "search", "train", "export"):
        assert f"stage '{name}' is stale: resolved.yaml#seed" in document["error"]["message"]


def write_export(context: Context, *, passed: bool) -> None:
    """Put a package and its record into the finished export stage."""
    with finishing(context, "export") as folder:
        (folder / "abc").mkdir()
        (folder / "abc" / "package").write_text("weights")
        check = {"name": "runs", "expected": "yes", "found": "yes" if passed else "no", "passed": passed}
        body = {"schema": "nas/export/1", "package": "package", "sha256": sha256_text("weights"), "checks": [check]}
        (folder / "abc" / "export.json").write_text(json.dumps(body))
