"""The phases of a generation besides the denoiser: from the YAML to prices, and to jobs that measure them.

torch is imported inside functions: pricing stated and described phases does not need it.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from latency_models.jobs import MeasurementJob, Prepared
from latency_models.phases import OTHER_PHASES, Pipeline, phase_of_figures, phase_of_records, phase_of_workload
from latency_models.profiles import call_label, read_profile
from nas.pipeline.scenarios import stage_folder

if TYPE_CHECKING:
    from torch import nn

    from latency_models import CostPredictor
    from latency_models.phases import OtherPhase, PhasePrice
    from nas.config.phases import WorkloadPhase
    from nas.core.architecture import Architecture
    from nas.core.workload import Workload
    from nas.pipeline.context import Context


def build_pipeline(context: Context, predictor: CostPredictor, *, keeps_arenas: bool) -> Pipeline:
    """Return what the ``phases`` section says of a generation; the denoiser alone without one.

    Args:
        context: The run.
        predictor: Prices phases that are described by their workload.
        keeps_arenas: Whether the device's networks hold their activation memory while they wait.

    Raises:
        ProfileError: A profiled phase was not measured.
    """
    section = context.config.phases
    if section is None:
        return Pipeline()
    prices = [_price(context, name, predictor) for name in OTHER_PHASES]
    return Pipeline(
        phases=tuple(price for price in prices if price is not None),
        residency=section.memory,
        keeps_arenas=keeps_arenas,
    )


def profiled_phases(context: Context) -> tuple[OtherPhase, ...]:
    """Return the phases that the profile stage measures."""
    section = context.config.phases
    return tuple(name for name in OTHER_PHASES if section and getattr(section, name).type == "profiled")


def phase_jobs(context: Context, device: str) -> list[MeasurementJob]:
    """Return the jobs that measure the profiled phases, one call each."""
    return [
        MeasurementJob(subject=name, level="phase", make=partial(_make_phase, context, name, device))
        for name in profiled_phases(context)
    ]


def generation_job(context: Context, architecture: Architecture, device: str) -> MeasurementJob:
    """Return the job that measures a whole generation: caption to clip, all networks loaded."""
    make = partial(_make_generation, context, architecture, device)
    return MeasurementJob(subject=architecture.digest, level="pipeline", make=make)


def phase_weights_mb(context: Context) -> float:
    """Return the memory of the weights of the profiled phases' modules, all loaded."""
    return sum(_weights_mb(context, name) for name in profiled_phases(context))


def _price(context: Context, name: OtherPhase, predictor: CostPredictor) -> PhasePrice | None:
    phase: Any = getattr(context.config.phases, name)
    if phase.type == "stated":
        price = phase_of_figures(name, **phase.model_dump(exclude={"type"}))
        return _of_other_size(price, context) if name == "decoder" else price
    if phase.type == "workload":
        workload, calls = _described(context, name, phase)
        return phase_of_workload(name, workload, predictor, calls=calls)
    if phase.type == "profiled":
        profiles = read_profile(
            stage_folder(context, "profile") / "records.jsonl",
            scenario=call_label(context.scenario),
            device=context.config.device.name,
        )
        price = phase_of_records(
            name,
            profiles,
            calls=2 if name == "text_encoder" and context.scenario.guidance else 1,
            weights_mb=_weights_mb(context, name),
            coverage=context.config.budget.coverage,
        )
        return _of_other_steps(price, context) if name == "overhead" else price
    return None


def _of_other_size(price: PhasePrice, context: Context) -> PhasePrice:
    """Return a decoder that was stated for the run's own clips in proportion to the pixels of others."""
    stated, own = context.config.scenario, context.scenario
    frame = own.height * own.width / (stated.height * stated.width)
    ratio = frame * own.frames / stated.frames
    if ratio == frame == 1.0:
        return price
    return price.scaled(ratio, why="its pixels and frames", activation_ratio=frame, in_domain=False)


def _of_other_steps(price: PhasePrice, context: Context) -> PhasePrice:
    """Return the sampler's arithmetic, measured for the run's own number of steps, for another: equal work a step."""
    measured, own = context.config.scenario.denoising_steps, context.scenario.denoising_steps
    return price if measured == own else price.scaled(own / measured, why=f"{own} steps, measured for {measured}")


def _described(context: Context, name: OtherPhase, phase: WorkloadPhase) -> tuple[Workload, int]:
    """Return the workload of one call of a phase, and its calls."""
    from search_spaces.stable_diffusion import text_encoder_workload, vae_decoder_workload

    scenario, backbone = context.scenario, context.space.backbone
    if name == "text_encoder":
        workload = text_encoder_workload(
            tokens=backbone.text_tokens, width=backbone.text_width, element_bytes=scenario.element_bytes
        )
        return workload, 2 if scenario.guidance else 1
    workload = vae_decoder_workload(
        min(phase.frames, scenario.frames), scenario.height, scenario.width, element_bytes=scenario.element_bytes
    )
    return workload, ceil(scenario.frames / phase.frames)


def _text_encoder(context: Context) -> nn.Module:
    from nas.models.caption import CaptionEncoder
    from nas.training.clips import VOCABULARY

    backbone = context.space.backbone
    return CaptionEncoder(vocabulary=VOCABULARY, width=backbone.text_width, num_tokens=backbone.text_tokens).eval()


def _decoder(context: Context) -> nn.Module:
    from nas.training.codec import PatchCodec

    backbone = context.space.backbone
    return PatchCodec(patch=backbone.latent_downsampling, channels=backbone.latent_channels).eval()


def _weights_mb(context: Context, name: OtherPhase) -> float:
    from itertools import chain

    if name == "overhead":
        return 0.0
    module = _text_encoder(context) if name == "text_encoder" else _decoder(context)
    return sum(tensor.nbytes for tensor in chain(module.parameters(), module.buffers())) / 1e6


def _make_phase(context: Context, name: OtherPhase, device: str) -> Prepared:
    import torch

    dtype = getattr(torch, context.scenario.precision)
    if name == "text_encoder":
        encoder: Any = _text_encoder(context).to(device=device, dtype=dtype)
        return encoder.encode, ([_caption()],)
    if name == "decoder":
        decoder: Any = _decoder(context).to(device=device, dtype=dtype)
        return decoder.decode, (_noise(context, device),)

    def standing_in(noisy: torch.Tensor, _times: torch.Tensor, _tokens: torch.Tensor) -> torch.Tensor:
        return noisy

    # The sampler's own arithmetic, around a denoiser that does nothing.
    return partial(_sample, context, standing_in), (_noise(context, device), *_tokens(context, device))


def _make_generation(context: Context, architecture: Architecture, device: str) -> Prepared:
    import torch

    from nas.models.build import build_denoiser

    dtype = getattr(torch, context.scenario.precision)
    network = build_denoiser(context.space, architecture, dtype=dtype, device=device).eval()
    encoder: Any = _text_encoder(context).to(device=device, dtype=dtype)
    decoder: Any = _decoder(context).to(device=device, dtype=dtype)
    measured = profiled_phases(context)
    features = _tokens(context, device)

    def generate() -> torch.Tensor:
        noise = _noise(context, device)
        tokens, empty = features
        if "text_encoder" in measured:
            tokens = encoder.encode([_caption()]).tokens
            empty = encoder.encode([""]).tokens if context.scenario.guidance else tokens
        latents = _sample(context, network, noise, tokens, empty)
        return decoder.decode(latents) if "decoder" in measured else latents

    return generate, ()


def _sample(context: Context, denoiser: Any, noise: Any, tokens: Any, empty: Any) -> Any:
    from nas.training.sampling import sample_euler

    steps, guidance = context.scenario.denoising_steps, 2.0 if context.scenario.guidance else 1.0
    return sample_euler(denoiser, noise, tokens, empty=empty, steps=steps, guidance=guidance)


def _caption() -> str:
    from nas.training.clips import VOCABULARY

    return " ".join(VOCABULARY[:6])


def _noise(context: Context, device: str) -> Any:
    import torch

    from nas.models.build import example_inputs

    dtype = getattr(torch, context.scenario.precision)
    return example_inputs(context.space, context.scenario, dtype=dtype, device=device)[0]


def _tokens(context: Context, device: str) -> tuple[Any, Any]:
    import torch

    from nas.models.build import example_inputs

    dtype = getattr(torch, context.scenario.precision)
    tokens = example_inputs(context.space, context.scenario, dtype=dtype, device=device)[2]
    return tokens, tokens
