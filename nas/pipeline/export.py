"""The ``export`` stage: the chosen network as a checked Core ML package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.artefacts import TrainedModel
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, from_data, to_data, with_schema
from nas.export.denoiser import export_denoiser
from nas.export.lowering import chosen_lowering
from nas.export.metadata import ExportMetadata
from nas.models.build import build_denoiser
from nas.models.unet import VideoUNet
from nas.models.weights import WeightReport, load_image_weights
from nas.pipeline.audit import AUDIT_NAME, Described, write_audit
from nas.pipeline.bundle import bundle_completion
from nas.pipeline.choice import chosen
from nas.pipeline.compress import CACHE_NAME, compression_of, costed_text
from nas.pipeline.context import present
from nas.report.audit import described_lines, headlines
from nas.runs.front import read_front

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.artefacts import ExportedModel
    from nas.core.protocols import Progress
    from nas.core.scenario import ScenarioPoint
    from nas.export.component import Component
    from nas.pipeline.context import Context


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Export the trained network, or the chosen architecture with image or fresh weights where none was trained.

    Raises:
        CheckpointError: The trained weights or the image weights cannot be read.
        UnavailableError: coremltools is missing or the disk is full.
        VerificationError: A check of the package failed.
    """
    front = read_front(context.path("search", "front.json"))
    member = next(item for item in front.members if item.architecture.digest == front.selected)
    selected = chosen(context, member)
    own = folder / selected.digest
    denoiser, trained, source = source_network(context, selected.digest, selected.architecture)
    if source is not None:
        write_json(folder / "image_weights.json", with_schema("image_weights", 1, to_data(source)))
    section, scenario = present(context.config.export, "export"), selected.context.scenario
    compress = compression_of(
        section.compression,
        selected.context.config.device.weights,
        cache=folder / CACHE_NAME,
        progress=progress,
    )
    metadata = ExportMetadata(
        trained=trained,
        cost=member.cost,
        quality=member.quality,
        costed_weights=costed_text(section.compression, selected.context.config.device.weights),
    )
    lowering = chosen_lowering(section.lowering, scenario)
    around = bundle_completion(
        section,
        trained=context.path("train", selected.digest),
        backbone=denoiser.spec,
        scenario=scenario,
        lowering=lowering,
        metadata=metadata,
    )
    # The package is float16 whatever the host was priced in.
    stored = replace(scenario, precision="float16")
    described = Described(workload=context.space.workload(selected.architecture, stored), form=lowering)

    def complete(work: Path, component: Component, model: ExportedModel) -> str:
        sections = around(work, component, model)
        write_audit(work, context.config.device.name, scenario.compute_units, described=described)
        return sections

    model = export_denoiser(
        denoiser,
        scenario,
        own,
        lowering=lowering,
        metadata=metadata,
        parity=section.parity,
        chunks=1 if compress is not None and section.chunks == "auto" else section.chunks,
        chunk_mb=section.chunk_mb,
        compress=compress,
        complete=complete,
        progress=progress,
    )
    weights = (
        f"{trained.stage} weights"
        if trained
        else "untrained temporal layers, which end in zeros and add nothing to the outputs compared"
    )
    passed = sum(check.passed for check in model.checks)
    names = " and ".join(str(own / name) for name in model.packages)
    return (
        f"{names}: {model.parameters:,} parameters, {model.package_bytes / 1e6:.1f} MB, {weights}, "
        f"{passed} of {len(model.checks)} checks passed, {model.seconds:.0f} s, peak memory {model.peak_rss_mb:,.0f} MB"
        f"{_scenario_words(selected.point, compressed=compress is not None)}{_audit_words(own)}"
    )


def _audit_words(folder: Path) -> str:
    """Say where the packages run and what they need in memory, as ``audit.json`` has it."""
    audit = read_json(folder / AUDIT_NAME)
    lines = [f"{package['package']} on {audit['device']}: {headlines(package)[0]}" for package in audit["packages"]]
    return "".join(f"\n  {line}" for line in (*lines, *described_lines(audit)))


def _scenario_words(point: ScenarioPoint, *, compressed: bool) -> str:
    """Say for which scenario the package is, and what of it this stage does not do."""
    if not point.text:
        return ""
    bits = point.weight_bits or 16
    left = (
        f"; its weights have 16 bits: compress it to {bits} with nas compress" if bits < 16 and not compressed else ""
    )
    return f"\n  for {point.text}{left}"


def source_network(
    context: Context, digest: str, architecture: Architecture
) -> tuple[VideoUNet, TrainedModel | None, WeightReport | None]:
    """Return the network that is exported: the trained one, else one with image weights or fresh ones.

    Args:
        context: The run.
        digest: Of the member of the front, which names the folder of its training.
        architecture: What is built.

    Returns:
        The network; the record of its training; what was taken from the image weights.

    Raises:
        CheckpointError: The trained weights or the image weights cannot be read.
    """
    import torch

    record = context.path("train", digest, "model.json")
    if record.is_file():
        body = check_schema(read_json(record), "trained_model", 1, where=str(record))
        trained = from_data(TrainedModel, body, where=str(record))
        return VideoUNet.from_pretrained(context.path(trained.folder), use_safetensors=True).eval(), trained, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.streams.integer("fresh-weights"))
        denoiser = build_denoiser(context.space, architecture).eval()
    source = present(context.config.export, "export").image_weights
    report = load_image_weights(denoiser, Path(source)) if source is not None else None
    return denoiser, None, report
