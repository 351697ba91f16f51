"""Makes an export's folder a bundle: text encoder, decoder, tokenizer, scheduler, a second opinion and the manifest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nas.export.bundle import (
    COMPONENTS,
    SCHEDULER,
    TOKENIZER,
    Bundle,
    BundleComponent,
    BundleFile,
    TimeEmbedding,
    describe_file,
    write_bundle,
)
from nas.export.bundle_card import bundle_sections
from nas.export.coreai import SUFFIX, export_coreai, require_coreai
from nas.export.metadata import tool_versions
from nas.export.parts import describe_package, write_part
from nas.pipeline.surroundings import find_surroundings, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.run import ExportSection
    from nas.core.artefacts import ExportedModel
    from nas.core.scenario import Scenario
    from nas.export.bundle import SecondOpinion
    from nas.export.component import Component
    from nas.export.denoiser import Completion
    from nas.export.metadata import ExportMetadata
    from nas.export.text_encoder import AttentionForm
    from nas.pipeline.surroundings import Surroundings
    from search_spaces.backbone import BackboneSpec

TIME_EMBEDDING = "time_embedding"


def bundle_completion(
    section: ExportSection,
    *,
    trained: Path,
    backbone: BackboneSpec,
    scenario: Scenario,
    lowering: str,
    metadata: ExportMetadata,
) -> Completion:
    """Check everything that goes around a denoiser, and return what adds it when the denoiser's package has passed.

    Args:
        section: Of the YAML.
        trained: Folder of the network's training, which need not exist.
        backbone: Of the denoiser.
        scenario: Frames and size.
        lowering: The compute unit that the packages are made for.
        metadata: Author and licence.

    Raises:
        InputError: ``export.pipeline`` lacks a part, or does not fit the denoiser or what it was trained on.
        UnavailableError: transformers or Core AI is needed and not installed.
    """
    if section.coreai:
        require_coreai()
    around = find_surroundings(section, trained=trained, backbone=backbone, scenario=scenario)

    def complete(folder: Path, component: Component, model: ExportedModel) -> str:
        bundle = Bundle(
            architecture=model.architecture,
            scenario=scenario,
            minimum_os=model.minimum_os,
            components=_components(around, section, folder, component, model, lowering=lowering, metadata=metadata),
            sampling=around.sampling,
            time_embedding=_time_embedding(component),
            tokenizer=None,
            scheduler=None,
            missing=around.missing,
            second_opinion=_second_opinion(section, component, folder),
            versions=tool_versions(),
        )
        licences = write_files(around, folder)
        bundle = replace(
            bundle,
            tokenizer=_present(folder, TOKENIZER),
            scheduler=_present(folder, SCHEDULER),
            licences=tuple(describe_file(folder, name) for name in licences),
        )
        write_bundle(folder, bundle)
        return bundle_sections(bundle)

    return complete


def _components(
    around: Surroundings,
    section: ExportSection,
    folder: Path,
    denoiser: Component,
    model: ExportedModel,
    *,
    lowering: str,
    metadata: ExportMetadata,
) -> tuple[BundleComponent, ...]:
    attention: AttentionForm = "decomposed" if lowering == "neural_engine" else "fused"
    steps, guided = len(around.sampling.times), around.sampling.guidance != 1.0
    found = [
        BundleComponent(
            name=denoiser.name,
            packages=tuple(
                describe_package(folder, path.name, texts=denoiser.texts)
                for path in sorted(folder.glob(f"{denoiser.name}*.mlpackage"))
            ),
            text=denoiser.description,
            calls=f"{steps} steps of a clip{', twice each with guidance' if guided else ''}",
            lowering=lowering,
            compression=model.weights,
            checks=model.checks,
            parity=model.parity,
        )
    ]
    frames, at_once = around.sampling.latent_shape[0], section.decoder_frames
    calls = {
        "text_encoder": "once a caption, and once for the empty one" if guided else "once a caption",
        "decoder": f"{-(-frames // at_once)} times a clip, {at_once} of {frames} frames each",
    }
    for make in (around.text, around.decoder):
        if make is not None:
            part = make(attention)
            found.append(
                write_part(
                    part,
                    folder,
                    metadata=metadata,
                    lowering=lowering,
                    calls=calls[part.name],
                    parity=section.parity,
                )
            )
    verified = [replace(item, verification=_present(folder, f"verification/{item.name}.safetensors")) for item in found]
    return tuple(sorted(verified, key=lambda item: COMPONENTS.index(item.name)))


def _time_embedding(denoiser: Component) -> TimeEmbedding | None:
    channels = [port.shape[-1] for port in denoiser.inputs if port.name == TIME_EMBEDDING]
    return TimeEmbedding(input=TIME_EMBEDDING, channels=channels[0]) if channels else None


def _second_opinion(section: ExportSection, denoiser: Component, folder: Path) -> SecondOpinion | None:
    return export_coreai(denoiser, folder / f"{denoiser.name}{SUFFIX}") if section.coreai else None


def _present(folder: Path, name: str) -> BundleFile | None:
    return describe_file(folder, name) if (folder / name).exists() else None
