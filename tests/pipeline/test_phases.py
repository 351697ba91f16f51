"""From the section phases to a price of a whole generation, and what cannot be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from latency_models.backends.torch_host import TorchHostBackend
from latency_models.jobs import MeasurementPlan
from latency_models.profiles import append_record, call_label
from nas.core.errors import ConfigError, ProfileError
from nas.core.profile import ProfileSet
from nas.pipeline.calibrate import read_records
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import load_cost_table, load_predictor
from nas.pipeline.phases import build_pipeline, generation_job, phase_jobs, phase_weights_mb

if TYPE_CHECKING:
    from pathlib import Path

PHONE = """\
run: {name: x, directory: DIRECTORY}
space: {name: snapgen_v}
scenario: {frames: 16, height: 512, width: 512, compute_units: cpu_and_gpu}
device: {name: iphone16_pro_max}
phases:
  memory: together
  text_encoder: {type: workload}
  decoder: {type: stated, latency_ms: 540, low_ms: 430, high_ms: 650, calls: 4, origin: published, source: a paper}
"""
HOST = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, precision: float32}
device: {name: host-cpu}
profile: {networks: 12}
calibrate: {}
phases: {text_encoder: {type: profiled}, decoder: {type: profiled}, overhead: {type: profiled}}
"""


def begin(folder: Path, text: str) -> Context:
    (folder / "run.yaml").write_text(text.replace("DIRECTORY", str(folder / "runs")))
    return open_run(str(folder / "run.yaml"))


def test_stated_and_described_phases_are_part_of_every_cost(tmp_path: Path) -> None:
    context = begin(tmp_path, PHONE)
    table = load_cost_table(context)
    cost = table.estimate(context.space.smallest())
    text, denoiser, decoder = cost.phases
    assert (decoder.calls, decoder.latency_ms, decoder.origin, decoder.source) == (4, 2160.0, "published", "a paper")
    assert (decoder.latency_interval_ms.low, decoder.latency_interval_ms.high) == (1720.0, 2600.0)
    assert decoder.peak_memory_mb is None
    # CLIP ViT-L/14 has 123.1 M parameters at two bytes; its activations are small.
    assert text.peak_memory_mb == pytest.approx(246.1, rel=0.02)
    assert text.origin == "predicted"
    assert cost.latency_ms == pytest.approx(text.latency_ms + denoiser.latency_ms + 2160.0)
    # A GPU plans its arenas when it loads, so the text encoder's stays beside the denoiser's.
    assert cost.peak_memory_mb == pytest.approx((text.peak_memory_mb or 0.0) + (denoiser.peak_memory_mb or 0.0))


def test_in_turn_the_largest_phase_alone_decides(tmp_path: Path) -> None:
    context = begin(tmp_path, PHONE.replace("together", "in_turn"))
    cost = load_cost_table(context).estimate(context.space.smallest())
    assert cost.peak_memory_mb == max(part.peak_memory_mb or 0.0 for part in cost.phases)


def test_without_the_section_a_cost_is_the_denoisers(tmp_path: Path) -> None:
    context = begin(tmp_path, PHONE.partition("phases:")[0])
    cost = load_cost_table(context).estimate(context.space.smallest())
    assert [part.phase for part in cost.phases] == ["denoiser"]
    assert cost.phases[0].latency_ms == cost.latency_ms


def test_profiled_phases_are_measured_once_and_priced_from_their_records(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    plan = MeasurementPlan(scenario=call_label(context.scenario), passes=1, min_repeats=6, max_repeats=6, seconds=0.001)
    records = context.path("profile", "records.jsonl")
    records.parent.mkdir(exist_ok=True)
    jobs = phase_jobs(context, "cpu")
    for job in jobs:
        append_record(records, TorchHostBackend().measure(job, plan, memory=True))
    predictor = load_predictor(begin(tmp_path, HOST.replace("calibrate: {}\n", "").partition("phases:")[0]))
    pipeline = build_pipeline(context, predictor, keeps_arenas=False)
    assert [phase.phase for phase in pipeline.phases] == ["text_encoder", "decoder", "overhead"]
    for phase in pipeline.phases:
        assert phase.origin == "measured"
        assert 0.0 < phase.latency_ms.low <= phase.latency_ms.value <= phase.latency_ms.high
        assert phase.activation_mb is not None
    # The codec's matrices: 16 components of 192 numbers, their mean and scale.
    assert pipeline.phases[1].weights_mb == pytest.approx(4 * (16 * 192 + 192 + 16) / 1e6)
    assert phase_weights_mb(context) == pytest.approx(sum(phase.weights_mb or 0.0 for phase in pipeline.phases))


def test_a_phase_that_was_not_measured_is_named(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    predictor = load_predictor(begin(tmp_path, HOST.replace("calibrate: {}\n", "").partition("phases:")[0]))
    with pytest.raises(ProfileError, match="no record of the phase 'text_encoder'"):
        build_pipeline(context, predictor, keeps_arenas=False)


def test_a_generation_makes_a_clip(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    generate, arguments = generation_job(context, context.space.smallest(), "cpu").make()
    assert tuple(generate(*arguments).shape) == (1, 8, 3, 32, 32)


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (PHONE, ("{type: workload}", "{type: profiled}"), "'profiled' is for the space 'tiny' on this host"),
        (HOST, ("calibrate: {}\n", ""), "'profiled' needs the sections profile and calibrate"),
        (HOST, ("decoder: {type: profiled}", "decoder: {type: workload}"), "the space 'tiny' has others"),
        (PHONE, ("low_ms: 430", "low_ms: 550"), "needs low_ms <= latency_ms <= high_ms"),
        (PHONE, ("calls: 4", "calls: 4, weights_mb: 3.0"), "give both weights_mb and activation_mb, or neither"),
        (PHONE, ("origin: published", "origin: predicted"), "origin"),
    ],
)
def test_what_cannot_be_asked_for_is_said(tmp_path: Path, text: str, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, text.replace(*change))
    assert message in "\n".join(f"{problem.path} {problem.message}" for problem in caught.value.problems)


def test_phases_in_the_profile_are_no_faults_of_the_calibration(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    context.path("profile").mkdir()
    backend = TorchHostBackend("cpu", threads=1)
    plan = MeasurementPlan(scenario=call_label(context.scenario), min_repeats=2, seconds=0.001)
    for job in phase_jobs(context, "cpu"):
        append_record(context.path("profile", "records.jsonl"), backend.measure(job, plan, memory=False))
    assert read_records(context) == (ProfileSet(records=()), [])
