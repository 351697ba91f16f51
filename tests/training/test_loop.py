"""The training loop: resume repeats the losses to the bit, a broken loss stops it, checkpoints are whole or absent."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor, nn

from nas.core.errors import CheckpointError, TrainingError
from nas.core.protocols import Progress, SilentProgress
from nas.core.rng import RandomStreams
from nas.training.checkpoint import list_checkpoints, read_checkpoint, write_checkpoint
from nas.training.ema import WeightAverage
from nas.training.loop import Batch, Phase, TrainingRun, cosine_rate
from nas.training.metrics import LossWatch
from nas.training.options import LoopOptions

if TYPE_CHECKING:
    from pathlib import Path

KillAt = Callable[[int], Progress]
DATA = torch.linspace(-1.0, 1.0, 20).reshape(-1, 1)


def make_run(
    folder: Path,
    *,
    options: LoopOptions,
    change_loss: Callable[[Tensor, int], Tensor] | None = None,
    fingerprint: str = "same",
    events: Path | None = None,
) -> tuple[TrainingRun, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = DATA[batch.indices]
        noise = 0.1 * torch.randn(inputs.shape, generator=batch.generator)
        value = (network(inputs + noise) - inputs.square()).square().mean()
        changed = value if change_loss is None else change_loss(value, batch.step)
        return changed, {"twice": 2 * value}

    run = TrainingRun(
        stage="toy",
        folder=folder,
        metrics=folder / "metrics.jsonl",
        options=options,
        modules={"network": network},
        phases=[Phase(name="network", trains=("network",), loss=loss)],
        averaged=("network",),
        num_items=len(DATA),
        streams=RandomStreams(7),
        fingerprint=fingerprint,
        events=events,
    )
    return run, network


OPTIONS = LoopOptions(steps=30, batch_size=6, learning_rate=0.01, warmup_steps=3, checkpoint_every=7, log_every=1)


def read_losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.mark.parametrize("killed_at", [1, 7, 17, 29])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_resumed_run_repeats_losses_and_weights_to_the_bit(
    tmp_path: Path, kill_at: KillAt, killed_at: int, accumulation: int
) -> None:
    options = replace(OPTIONS, accumulation=accumulation)
    whole, whole_network = make_run(tmp_path / "whole", options=options)
    whole.run(SilentProgress())
    broken, _ = make_run(tmp_path / "broken", options=options)
    with pytest.raises(InterruptedError):
        broken.run(kill_at(killed_at))
    resumed, resumed_network = make_run(tmp_path / "broken", options=options)
    resumed.run(SilentProgress())
    assert read_losses(tmp_path / "broken") == read_losses(tmp_path / "whole")
    for run in (whole, resumed):
        run.use_averages()
    pairs = zip(whole_network.parameters(), resumed_network.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_resume_starts_at_the_newest_checkpoint_and_only_two_are_kept(tmp_path: Path, kill_at: KillAt) -> None:
    run, _ = make_run(tmp_path, options=OPTIONS)
    with pytest.raises(InterruptedError):
        run.run(kill_at(25))
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000014", "step-00000021"]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, options=LoopOptions(steps=300, batch_size=10, learning_rate=0.02, log_every=1))
    run.run(SilentProgress())
    losses = read_losses(tmp_path)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_loss_stops_with_its_step_and_keeps_the_last_checkpoint(tmp_path: Path, value: float) -> None:
    run, _ = make_run(tmp_path, options=OPTIONS, change_loss=lambda loss, step: loss * value if step == 16 else loss)
    with pytest.raises(TrainingError, match=r"'toy', step 17, phase 'network'.*last good checkpoint is step-00000014"):
        run.run(SilentProgress())
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000014"
    assert len(read_losses(tmp_path)) == 16
    again, _ = make_run(tmp_path, options=OPTIONS)
    again.run(SilentProgress())
    assert len(read_losses(tmp_path)) == 30


def test_broken_gradient_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    def break_gradient(loss: Tensor, step: int) -> Tensor:
        return loss + 0.0 * torch.sqrt(loss - loss) if step == 2 else loss

    run, network = make_run(tmp_path, options=OPTIONS, change_loss=break_gradient)
    with pytest.raises(TrainingError, match=r"step 3.*gradient norm.*no checkpoint was written before it"):
        run.run(SilentProgress())
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_unreadable_checkpoint_is_named(tmp_path: Path, kill_at: KillAt, name: str, damage: str) -> None:
    run, _ = make_run(tmp_path, options=OPTIONS)
    with pytest.raises(InterruptedError):
        run.run(kill_at(10))
    path = tmp_path / "checkpoints" / "step-00000007" / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:20])
    again, _ = make_run(tmp_path, options=OPTIONS)
    with pytest.raises(CheckpointError, match="step-00000007") as caught:
        again.run(SilentProgress())
    assert "remove step-00000007" in str(caught.value.hint)


def test_checkpoint_of_another_run_is_refused(tmp_path: Path, kill_at: KillAt) -> None:
    run, _ = make_run(tmp_path, options=OPTIONS)
    with pytest.raises(InterruptedError):
        run.run(kill_at(10))
    other, _ = make_run(tmp_path, options=OPTIONS, fingerprint="other")
    with pytest.raises(CheckpointError, match="other options, network, data or seed"):
        other.run(SilentProgress())


def test_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step-00000007.partial").mkdir(parents=True)
    run, _ = make_run(tmp_path, options=OPTIONS)
    run.run(SilentProgress())
    assert len(read_losses(tmp_path)) == 30


def test_every_item_is_used_once_in_a_pass(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, options=LoopOptions(steps=10, batch_size=4))
    seen = []
    for step in range(5):
        run.step = step
        seen += run._indices(0).tolist()
    assert sorted(seen) == list(range(20))


def test_rate_rises_then_falls_along_a_cosine() -> None:
    options = LoopOptions(steps=110, warmup_steps=10, learning_rate=1.0, final_ratio=0.1)
    rates = [cosine_rate(step, options) for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_average_follows_the_stated_recursion() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, decay=0.2)
    expected = float(module.weight.detach())
    for step, weight in enumerate([1.0, -2.0, 5.0, 7.0]):
        module.weight.data.fill_(weight)
        average.update()
        # diffusers: no averaging at the first update, then (1 + n) / (10 + n) up to the limit.
        decay = 0.0 if step == 0 else min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
        assert float(dict(average.state_dict())["weight"]) == pytest.approx(expected)


def test_exploding_loss_stops_with_the_last_checkpoint_before_it(tmp_path: Path) -> None:
    options = replace(OPTIONS, divergence_ratio=10.0)
    run, _ = make_run(tmp_path, options=options, change_loss=lambda loss, step: loss * 1e4 if step >= 19 else loss)
    with pytest.raises(
        TrainingError, match=r"'toy', step 24: diverges: loss .* more than 10 times .* step-00000014"
    ) as e:
        run.run(SilentProgress())
    assert "divergence_ratio: null" in str(e.value.hint)
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000014"  # not 21, in the explosion


def test_loss_that_explodes_for_a_moment_goes_on(tmp_path: Path) -> None:
    run, _ = make_run(
        tmp_path, options=OPTIONS, change_loss=lambda loss, step: loss * 1e4 if step in (19, 20, 22) else loss
    )
    run.run(SilentProgress())
    assert len(read_losses(tmp_path)) == 30


def test_watch_of_no_ratio_never_stops() -> None:
    watch = LossWatch(None)
    assert not any(watch.exploded(10.0**power) for power in range(60))


def test_large_parts_of_a_checkpoint_are_split_and_read_back(tmp_path: Path) -> None:
    tensors = {f"w{index}": torch.full((10,), float(index)) for index in range(5)}
    parts = {"model": tensors.items(), "ema": iter(()), "optimizer": [("big", torch.ones(1000))]}
    path = write_checkpoint(tmp_path, step=3, fingerprint="f", parts=parts, state={}, file_bytes=100)
    names = {"model.safetensors", "model-2.safetensors", "model-3.safetensors"}
    assert {file.name for file in path.glob("model*")} == names
    again = read_checkpoint(path, fingerprint="f")
    assert all(torch.equal(again.tensors["model"][name], value) for name, value in tensors.items())
    assert again.tensors["ema"] == {}
    assert torch.equal(again.tensors["optimizer"]["big"], torch.ones(1000))


def test_events_of_tensorboard_hold_the_metrics_and_follow_a_resume(tmp_path: Path, kill_at: KillAt) -> None:
    for progress in (kill_at(10), SilentProgress()):
        run, _ = make_run(tmp_path, options=OPTIONS, events=tmp_path / "events")
        try:
            run.run(progress)
        except InterruptedError:
            continue
    loss: dict[int, float] = {}
    for file in sorted((tmp_path / "events").iterdir(), key=lambda path: int(path.suffix[1:])):
        for event in read_events(file):
            if event.session_log.status == event.session_log.START:
                loss = {step: value for step, value in loss.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "loss":
                    loss[event.step] = value.simple_value
    assert [loss[step] for step in sorted(loss)] == pytest.approx(read_losses(tmp_path), rel=1e-6)


def read_events(path: Path) -> list[Event]:
    """Records of a TFRecord file: length, its checksum, data, its checksum."""
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        events.append(Event.FromString(data[place + 12 : place + 12 + length]))
        place += length + 16
    return events


def test_options_that_leave_the_losses_alone_are_not_part_of_the_outcome() -> None:
    other = replace(OPTIONS, gradient_checkpointing=True, sharding="full", log_every=9, checkpoint_every=9, threads=4)
    assert other.outcome() == OPTIONS.outcome()
    assert replace(OPTIONS, learning_rate=0.02).outcome() != OPTIONS.outcome()


def test_options_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        LoopOptions(steps=1, batch_size=0)
