"""Training options outside their range are faults of the YAML, with line and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.config.run import load_run
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = """\
run: {name: x}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: host-cpu}
"""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.teacher.loop.learning_rate", "-0.1"),
        ("train.teacher.loop.learning_rate", ".inf"),
        ("train.teacher.loop.ema_decay", "1.0"),
        ("train.teacher.loop.ema_decay", "-0.1"),
        ("train.teacher.loop.final_ratio", "1.5"),
        ("train.teacher.loop.batch_size", "0"),
        ("train.teacher.loop.precision", "float16"),
        ("train.teacher.loop.threads", "0"),
        ("train.teacher.noise.time_std", "0"),
        ("train.teacher.noise.image_ratio", "1.1"),
        ("train.teacher.noise.text_dropout", ".nan"),
        ("train.distillation.feature_weight", "-1"),
        ("train.collection.substeps", "0"),
        ("train.collection.num_clips", "0"),
        ("train.collection.batch_size", "0"),
        ("train.collection.guidance", "0.5"),
        ("train.trajectory.huber_width", "0"),
        ("train.adversarial.betas", "[0.5, 1.0]"),
        ("train.adversarial.mismatch_ratio", "-0.2"),
        ("train.adversarial.head_width", "20"),
        ("train.adversarial.head_width", "0"),
        ("train.evaluation.num_clips", "17"),
        ("train.evaluation.num_few_step_clips", "0"),
        ("quality.options.loop.learning_rate", "-1"),
        ("quality.options.noise.time_std", "0"),
    ],
)
def test_a_value_outside_its_range_is_a_fault(tmp_path: Path, path: str, value: str) -> None:
    keys = path.split(".")
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
    file = tmp_path / "run.yaml"
    kind = "  type: supernet\n" if keys[0] == "quality" else ""
    file.write_text(PLAIN + "\n".join(lines) + f" {value}\n" + kind)
    with pytest.raises(ConfigError) as caught:
        load_run(file)
    (problem,) = caught.value.problems
    assert problem.path.startswith(path)
    assert problem.line == 4 + len(keys)
    assert "got " in problem.message
    assert problem.message.endswith(value.strip("[]").rpartition(", ")[2].lstrip(".")) or value == "float16"


@pytest.mark.parametrize("value", ["0.0", "0.999"])
def test_the_ends_of_a_range_are_allowed(tmp_path: Path, value: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(PLAIN + f"train: {{teacher: {{loop: {{ema_decay: {value}}}}}}}\n")
    config = load_run(file)
    assert config.train is not None
    assert config.train.teacher.loop.ema_decay == float(value)
