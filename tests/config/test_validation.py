"""Faulty YAML is reported whole: every fault with its line, allowed values and the nearest spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.config.run import load_run
from nas.config.search import SearchSection
from nas.config.templates import TEMPLATES, read_template
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FAULTY = """\
run: {name: x, seed: true}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, compute_units: cpu_and_ane}
device: {name: host-cpu}
budget:
  latency_ms: "5000"
  peak_memory_mb: -3
  coverge: 0.9
search: {engine: {type: optnua}, evaluations: 0}
train:
  teacher: {loop: {steps: 3, lerning_rate: 1}}
"""

PLAIN = """\
run: {name: x}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: host-cpu}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_all_faults_are_named_at_once_with_place_and_spelling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 problems") as caught:
        load_run(write(tmp_path, FAULTY))
    found = [(problem.line, problem.path, problem.message) for problem in caught.value.problems]
    assert found == [
        (1, "run.seed", "must be a whole number, got true/false true"),
        (
            3,
            "scenario.compute_units",
            "must be one of all, cpu_only, cpu_and_gpu, cpu_and_ne, got text 'cpu_and_ane'; did you mean 'cpu_and_ne'?",
        ),
        (6, "budget.latency_ms", "must be a number, got text '5000'"),
        (7, "budget.peak_memory_mb", "must be above 0.0, got -3"),
        (8, "budget.coverge", "unknown key; did you mean 'coverage'?"),
        (9, "search.engine", found[5][2]),
        (9, "search.evaluations", "must be at least 1, got 0"),
        (11, "train.teacher.loop.lerning_rate", "unknown key; did you mean 'learning_rate'?"),
    ]
    assert found[5][2].startswith("type must be one of ")
    assert found[5][2].endswith("got 'optnua'; did you mean 'optuna'?")


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ("search: {engine: {draws: 3}}", "search.engine", "needs a 'type', one of random, exhaustive, optuna, "),
        ("search: {warm_start: runs/one}", "search.warm_start", "must be a list, got text 'runs/one'"),
        ("search: {scenario: {size: [[1, 2, 3]]}}", "search.scenario.size.0", "must have at most 2 items, got 3"),
        (
            "quality: {type: levels, levels: [{type: temporal_capacity}]}",
            "quality.levels",
            "must have at least 2 items, got 1",
        ),
        (
            "quality: {type: levels, levels: [{price: 0.1}, {type: supernet}]}",
            "quality.levels.0",
            "needs a 'type', one of supernet, temporal_capacity, proxy, removal_sensitivity, short_training",
        ),
    ],
)
def test_lists_and_their_items_are_spoken_of_in_the_words_of_the_yaml(
    tmp_path: Path, section: str, path: str, message: str
) -> None:
    with pytest.raises(ConfigError, match="1 problem\\n") as caught:
        load_run(write(tmp_path, f"{PLAIN}{section}\n"))
    assert caught.value.problems[0].path == path
    assert caught.value.problems[0].message.startswith(message)


def test_missing_sections_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(write(tmp_path, "run: {name: x}\n"))
    assert {problem.path: problem.message for problem in caught.value.problems} == {
        "space": "is missing",
        "scenario": "is missing",
        "device": "is missing",
    }


def test_two_latency_limits_contradict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give latency_ms or latency_share, not both"):
        load_run(write(tmp_path, PLAIN + "budget: {latency_ms: 5, latency_share: 0.5}\n"))


def test_a_duplicate_key_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"5:1\s+run: key is given twice"):
        load_run(write(tmp_path, PLAIN + "run: {name: y}\n"))


def test_setting_one_option_keeps_the_stages_other_defaults(tmp_path: Path) -> None:
    plain = load_run(write(tmp_path, PLAIN + "train: {}\n")).train
    changed = load_run(write(tmp_path, PLAIN + "train: {adversarial: {loop: {steps: 7}}}\n")).train
    assert plain is not None
    assert changed is not None
    assert changed.adversarial.loop.steps == 7
    assert changed.adversarial.loop.learning_rate == plain.adversarial.loop.learning_rate
    assert changed.adversarial.betas == plain.adversarial.betas


def test_overrides_are_validated_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.batch: must be at least 1, got 0"):
        load_run(write(tmp_path, PLAIN + "search: {}\n"), ("search.batch=0",))


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_valid_and_survive_being_resolved(tmp_path: Path, name: str) -> None:
    from nas.pipeline.context import resolved_text

    config = load_run(write(tmp_path, read_template(name)))
    assert load_run(write(tmp_path, resolved_text(config))) == config


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_search_by_the_default_engine(tmp_path: Path, template: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(read_template(template))
    search = load_run(path).search
    assert search is not None
    assert search.engine == SearchSection().engine
    assert search.engine.type == "model_based"
