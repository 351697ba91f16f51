"""The supernet is each of its sub-networks, trains every option fairly, and its estimate is deterministic."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from nas.core.architecture import Architecture
from nas.core.errors import ArchitectureError, CheckpointError
from nas.core.rng import RandomStreams
from nas.quality.held_out_loss import SupernetQuality, clip_losses, supernet_quality
from nas.quality.options import SupernetOptions
from nas.quality.paths import fair_path
from nas.quality.supernet import (
    SlotLayers,
    Supernet,
    _part,
    load_supernet,
    make_supernet,
    paths_loss,
    train_supernet,
)
from nas.training.data import make_latent_clips
from nas.training.options import LoopOptions, NoiseOptions
from search_spaces.layers import temporal_spec
from search_spaces.workload import slot_setting

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.workload import BlockSpec
    from nas.training.stage import Kit

SPACE = search_spaces.get("tiny")


@pytest.fixture(scope="module")
def kit() -> Kit:
    """A supernet whose layers are no longer identities, so that paths differ."""
    torch.set_num_threads(1)
    kit = make_supernet(SPACE, seed=0)
    torch.manual_seed(1)
    for name, parameter in kit.denoiser.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return kit


@pytest.fixture(scope="module")
def estimator(kit: Kit) -> SupernetQuality:
    return supernet_quality(kit, seed=3, trained_steps=0, num_clips=18)


def some_architectures(count: int) -> list[Architecture]:
    draw = random.Random(5)
    counts = [len(SPACE.options(slot)) for slot in SPACE.slots()]
    drawn = [SPACE.from_options([draw.randrange(number) for number in counts]) for _ in range(count)]
    return [SPACE.smallest(), SPACE.largest(), *drawn]


@pytest.mark.parametrize("index", range(5))
def test_extracted_network_computes_what_the_active_path_does(kit: Kit, index: int) -> None:
    architecture = some_architectures(3)[index]
    supernet = kit.denoiser
    assert isinstance(supernet, Supernet)
    supernet.activate(SPACE.to_options(architecture))
    arguments = (torch.randn(2, *kit.latent_shape), torch.tensor([300.0, 900.0]), torch.randn(2, 12, 64))
    network = supernet.extract(architecture)
    assert network.architecture == architecture
    assert torch.allclose(network(*arguments), supernet(*arguments), atol=1e-5)


@pytest.mark.parametrize("option", range(23))
def test_every_option_is_a_part_of_its_kinds_largest(kit: Kit, option: int) -> None:
    """An extracted layer equals the supernet's, and what it takes is in the shared weights."""
    supernet = kit.denoiser
    assert isinstance(supernet, Supernet)
    layers = supernet.unet.temporal_layers["mid_0"]
    assert isinstance(layers, SlotLayers)
    parts, forms = layers.weights(option), len(layers.kinds)
    kind = str(SPACE.options("mid.0")[option]["mid.0.kind"])
    assert (forms, bool(parts)) == (6, kind != "none")
    shared = dict(layers.kinds[kind].named_parameters()) if parts else {}
    assert all(torch.isin(part, shared[name]).all() for name, part in parts.items())


def test_all_kinds_of_attention_can_share_one_set_of_weights(tmp_path: Path) -> None:
    """A step with one of them trains what the others take, extracted networks have it, and a reader notices."""
    kit = make_supernet(SPACE, seed=0, sharing="attention")
    supernet = kit.denoiser
    assert isinstance(supernet, Supernet)
    layers = supernet.unet.temporal_layers["mid_0"]
    assert isinstance(layers, SlotLayers)
    assert sorted(layers.kinds) == ["attention", "conv1d", "conv3d"]
    video, text = torch.randn(1, 2, 80, 2, 2), torch.randn(1, 12, 64)
    layers.active = first_option("mid.0", "self_attention_3d")
    layers(video, text).square().sum().backward()
    with torch.no_grad():
        for weight in layers.parameters():
            if weight.grad is not None:
                weight -= weight.grad.sign() * 0.1

    for kind in ("self_attention_1d", "cross_attention_1d", "cross_attention_3d"):
        layers.active = first_option("mid.0", kind)
        computed = layers(video, text)
        assert not torch.allclose(computed, video, atol=1e-3)
        network = supernet.extract(SPACE.from_options([0, 0, layers.active, 0, 0]))
        assert torch.allclose(network.temporal_layers["mid_0"](video, text), computed, atol=1e-5)

    supernet.save_pretrained(tmp_path / "denoiser")
    kit.captions.save(tmp_path / "caption_encoder.safetensors")
    kit.own_codec.save(tmp_path / "codec.safetensors")
    read = load_supernet(SPACE, tmp_path, seed=0).denoiser.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in supernet.state_dict().items())


def first_option(slot: str, kind: str) -> int:
    return next(index for index, option in enumerate(SPACE.options(slot)) if option[f"{slot}.kind"] == kind)


def test_narrower_kernels_take_the_middle_and_gates_their_own_half() -> None:
    layers = SlotLayers([None, *(conv(kernel) for kernel in (3, 5))])
    assert torch.equal(layers.weights(1)["conv.weight"], layers.kinds["conv1d"].conv.weight[:, :, 1:4])
    values, gates = _part("block.ff.net.0.proj.bias", torch.arange(16.0), torch.Size([6])).chunk(2)
    assert (values.tolist(), gates.tolist()) == ([0.0, 1.0, 2.0], [8.0, 9.0, 10.0])


def conv(kernel: int) -> BlockSpec:
    wanted = {"mid.0.kind": "conv1d", "mid.0.width_ratio": 1.0, "mid.0.kernel": kernel}
    spec = temporal_spec(SPACE.backbone, slot_setting(wanted, "mid.0"), channels=80, frames=1, height=1, width=1)
    assert spec is not None
    return spec


def test_extracted_network_is_a_copy(kit: Kit) -> None:
    supernet = kit.denoiser
    assert isinstance(supernet, Supernet)
    network = supernet.extract(SPACE.largest())
    before = supernet.unet.conv_in.weight.clone()
    torch.nn.init.zeros_(network.conv_in.weight)
    assert torch.equal(supernet.unet.conv_in.weight, before)


def test_every_kind_of_every_slot_and_every_option_of_a_kind_is_trained_equally_often() -> None:
    paths = [fair_path(SPACE, step, streams=RandomStreams(1)) for step in range(7 * 4)]
    for position, slot in enumerate(SPACE.slots()):
        kinds = [str(option[f"{slot}.kind"]) for option in SPACE.options(slot)]
        counts = Counter(path[position] for path in paths)
        assert counts == {option: 4 // kinds.count(kind) for option, kind in enumerate(kinds)}


def test_slots_walk_independently() -> None:
    paths = [fair_path(SPACE, step, streams=RandomStreams(1)) for step in range(28)]
    assert len({path[0] - path[1] for path in paths}) > 5


def test_training_touches_only_the_paths_taken_and_is_resumable(tmp_path: Path) -> None:
    streams = RandomStreams(2)
    options = SupernetOptions(loop=LoopOptions(steps=3, batch_size=4, warmup_steps=1, log_every=1))
    kit = make_supernet(SPACE, seed=0)
    before = {name: value.clone() for name, value in kit.denoiser.state_dict().items()}
    data = make_latent_clips(16, codec=kit.codec, captions=kit.captions, seed=1)
    train_supernet(kit, data, options=options, folder=tmp_path / "supernet", streams=streams)
    taken = {
        (slot.replace(".", "_"), str(SPACE.options(slot)[option][f"{slot}.kind"]))
        for step in range(3)
        for slot, option in zip(SPACE.slots(), fair_path(SPACE, step, streams=streams), strict=True)
    }
    changed = {
        (name.split("temporal_layers.")[1].split(".")[0], name.split(".kinds.")[1].split(".")[0])
        for name, value in kit.denoiser.state_dict().items()
        if ".kinds." in name and not torch.equal(value, before[name])
    }
    assert changed
    assert changed <= taken
    again = load_supernet(SPACE, tmp_path / "supernet", seed=0)
    read = again.denoiser.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in kit.denoiser.state_dict().items())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["supernet"] * 3


def test_sandwich_trains_the_largest_and_the_empty_network_in_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, ...]] = []
    plain = Supernet.activate
    monkeypatch.setattr(Supernet, "activate", lambda self, path: (taken.append(tuple(path)), plain(self, path))[1])
    kit = train_briefly(tmp_path, rule="sandwich", random_paths=1)
    largest, empty = SPACE.to_options(SPACE.largest()), SPACE.to_options(SPACE.smallest())
    assert taken[0::3] == [largest] * 2
    assert taken[2::3] == [empty] * 2
    assert len(taken) == 6
    fresh, trained = make_supernet(SPACE, seed=0).denoiser.state_dict(), kit.denoiser.state_dict()
    for slot in SPACE.slots():
        name = f"unet.temporal_layers.{slot.replace('.', '_')}.kinds.conv3d.proj_out.weight"
        assert not torch.equal(fresh[name], trained[name])


def test_the_first_path_teaches_the_others_and_learns_from_the_data_alone() -> None:
    first = torch.tensor([1.0, 1.0], requires_grad=True)
    other = torch.tensor([0.0, 0.0], requires_grad=True)
    paths_loss([first, other], torch.tensor([3.0, 5.0]), distillation_ratio=0.75).backward()
    # Half of the mean of two squares each; the other's target is a quarter of the data's and three of the first's.
    assert first.grad is not None
    assert other.grad is not None
    assert first.grad.tolist() == pytest.approx([-2.0 * 2 / 4, -2.0 * 4 / 4])
    assert other.grad.tolist() == pytest.approx([-2.0 * 1.5 / 4, -2.0 * 2.0 / 4])


def train_briefly(folder: Path, **options: object) -> Kit:
    kit = make_supernet(SPACE, seed=0)
    data = make_latent_clips(16, codec=kit.codec, captions=kit.captions, seed=1)
    loop = LoopOptions(steps=2, batch_size=2, warmup_steps=0)
    chosen = SupernetOptions(loop=loop, noise=NoiseOptions(image_ratio=0.0), **options)  # type: ignore[arg-type]
    train_supernet(kit, data, options=chosen, folder=folder / "supernet", streams=RandomStreams(2))
    return kit


def test_missing_supernet_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors: cannot be read"):
        load_supernet(SPACE, tmp_path, seed=0)


def test_loss_is_taken_at_the_given_times(kit: Kit) -> None:
    quality = supernet_quality(kit, seed=3, trained_steps=0, num_clips=18, times=(0.3, 0.6)).estimate(SPACE.smallest())
    metrics = dict(quality.metrics)
    assert set(metrics) == {"held_out_loss", "loss_at_0.3", "loss_at_0.6"}
    assert quality.score == pytest.approx(-(metrics["loss_at_0.3"] + metrics["loss_at_0.6"]) / 2)
    assert quality.fidelity == "0 shared steps, 18 held-out clips at 2 times"


def test_estimate_is_the_loss_of_the_extracted_network(kit: Kit, estimator: SupernetQuality) -> None:
    architecture = some_architectures(1)[2]
    quality = estimator.estimate(architecture)
    assert isinstance(kit.denoiser, Supernet)
    losses = clip_losses(kit.denoiser.extract(architecture).eval(), estimator._batch)
    assert quality.score == pytest.approx(-losses.mean().item(), rel=1e-4)
    assert quality.standard_error == pytest.approx(losses.mean(dim=0).std().item() / 18**0.5, rel=1e-3)


def test_estimate_does_not_depend_on_what_was_estimated_before(estimator: SupernetQuality) -> None:
    first, *others = some_architectures(2)
    before = estimator.estimate(first)
    for other in others:
        estimator.estimate(other)
    assert estimator.estimate(first) == before


def test_estimates_tell_architectures_apart(estimator: SupernetQuality) -> None:
    assert len({estimator.estimate(architecture).score for architecture in some_architectures(3)}) == 5


def test_foreign_architecture_is_refused(estimator: SupernetQuality) -> None:
    with pytest.raises(ArchitectureError):
        estimator.estimate(Architecture("tiny/1", {"down0.0.kind": "magic"}))
