"""Estimators that a run's YAML names, as the search stage builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from nas.core.errors import ConfigError
from nas.core.protocols import SilentProgress
from nas.pipeline.quality import ESTIMATORS, make_levels
from nas.quality import sensitivity
from nas.quality.held_out_loss import SupernetQuality
from nas.quality.supernet import SlotLayers
from tests.integration.small_run import SMALL_RUN
from tests.pipeline.test_checks import GOOD, found
from tests.pipeline.test_stages import begin, without_sections

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import QualityEstimator

SMALL = "clips: 18, held_out_clips: 18"
SUPERNET = "{rule: sandwich, drop_ratio: 0.3, loop: {steps: 1, batch_size: 2}}"


def estimator(folder: Path, quality: str) -> QualityEstimator:
    text = without_sections(SMALL_RUN.replace("DIRECTORY", str(folder)), "phases", "profile", "calibrate", "quality")
    head = text[: text.index("search:")].replace("name: host-cpu", "name: iphone16_pro_max")
    context = begin(folder, f"{head}search: {{engine: {{type: random}}}}\nquality: {quality}\n")
    (level,) = make_levels(context, context.path("search"), SilentProgress())
    return level.estimator


@pytest.mark.parametrize(
    ("quality", "name"),
    [
        ("{type: proxy, name: flops}", "flops (proxy)"),
        ("{type: proxy, name: synflow}", "synflow (proxy)"),
        (f"{{type: proxy, name: grad_norm, backbone_steps: 1, {SMALL}}}", "grad_norm (proxy)"),
        (
            f"{{type: proxy, name: feature_alignment, backbone_steps: 1, teacher_steps: 1, {SMALL}}}",
            "feature_alignment (proxy)",
        ),
        (f"{{type: short_training, start: supernet, steps: 1, supernet: {SUPERNET}, {SMALL}}}", "short_training"),
    ],
)
def test_estimator_is_the_one_named(tmp_path: Path, quality: str, name: str) -> None:
    assert estimator(tmp_path, quality).name == name


def test_sensitivities_are_of_the_supernets_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    active: list[Any] = []

    def losses(supernet: Any, _batch: Any) -> torch.Tensor:
        active.append([layer.active for layer in supernet.unet.temporal_layers.values()])
        return torch.tensor([float(sum(active[-1]))])

    monkeypatch.setattr(sensitivity, "clip_losses", losses)
    made = estimator(tmp_path, f"{{type: removal_sensitivity, options: {SUPERNET}, {SMALL}}}")
    assert isinstance(made, sensitivity.SensitivityQuality)
    assert made.sensitivities.score([1, 2, 3, 4, 5]) == pytest.approx(-15.0)
    assert len(active) == 1 + 5 * 22


def test_supernet_shares_attention_and_is_judged_at_the_given_times(tmp_path: Path) -> None:
    options = SUPERNET.replace("{rule", "{sharing: attention, rule")
    made = estimator(tmp_path, f"{{type: supernet, times: [0.3, 0.6], options: {options}, {SMALL}}}")
    assert isinstance(made, SupernetQuality)
    assert made.fidelity == "1 shared steps, 18 held-out clips at 2 times"
    layers = made.supernet.unet.temporal_layers["mid_0"]
    assert isinstance(layers, SlotLayers)
    assert sorted(layers.kinds) == ["attention", "conv1d", "conv3d"]


def test_times_outside_of_0_to_1_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.times\.1: must be below 1\.0, got 1\.5"):
        estimator(tmp_path, "{type: supernet, times: [0.3, 1.5]}")


@pytest.mark.parametrize(("name", "faulty"), [("grad_norm", True), ("feature_alignment", True), ("synflow", False)])
def test_proxies_that_need_clips_need_their_frames(tmp_path: Path, name: str, faulty: bool) -> None:
    text = GOOD.replace("frames: 8", "frames: 4") + "search: {engine: {type: random}}\n"
    faults = found(tmp_path, f"{text}quality: {{type: proxy, name: {name}}}\n")
    assert any(message.startswith(f"proxy '{name}' uses") for _, message in faults.values()) is faulty


def test_every_estimator_is_listed() -> None:
    assert set(ESTIMATORS) == {
        "levels", "proxy", "removal_sensitivity", "short_training", "supernet", "temporal_capacity",
    }  # fmt: skip
