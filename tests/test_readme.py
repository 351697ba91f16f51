"""What the README shows exists: verbs, options, files and the Python example."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nas.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, body in BLOCKS if not kind for line in body.splitlines() if line]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("nas ")])
def test_commands_name_verbs_and_options_that_exist(command: str) -> None:
    words = shlex.split(command.split(">")[0])[1:]
    is_group = isinstance(main.get_command(click.Context(main), words[0]), click.Group)
    verbs = words[:2] if is_group else words[:1]
    shown = CliRunner().invoke(main, [*verbs, "--help"])
    assert shown.exit_code == 0
    assert all(word in shown.output for word in words if word.startswith("--"))
    assert all((ROOT / word).is_file() for word in words if word.startswith("examples/"))


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_python_example_prints_the_count_the_text_states(capsys: pytest.CaptureFixture[str]) -> None:
    printed = output_of("search_spaces", capsys)
    count = printed.split(" networks")[0]
    assert f"({count} distinct networks)" in README


def test_few_shot_example_finds_the_hidden_weights(capsys: pytest.CaptureFixture[str]) -> None:
    printed = output_of("latency_models.transfer", capsys)
    share, low, high = re.findall(r"[\d.]+(?=%)|(?<=0: )\d+|\d+(?= ms)", printed)
    # Latencies carry 1 % of noise, half of which lies within 0.7 %; ten readings of eight weights leave about as much.
    assert 0.4 < float(share) < 2.0
    assert 0 < float(low) < float(high)


def output_of(module: str, capsys: pytest.CaptureFixture[str]) -> str:
    (example,) = [body for kind, body in BLOCKS if kind == "python" and module in body]
    exec(compile(example, "README.md", "exec"), {})
    return capsys.readouterr().out
