"""What goes around an exported denoiser, so that its folder turns a caption into frames: where each part comes from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError
from nas.core.files import sha256_path
from nas.export.bundle import SCHEDULER, TOKENIZER, BundleSampling
from nas.export.component import Component
from nas.export.decoder import patch_component, vae_component
from nas.export.text_encoder import AttentionForm, clip_component, word_component
from nas.export.tokenizer import clip_ids, copy_clip_tokenizer, write_words
from nas.models.pretrained import load_clip_text, load_frame_decoder
from nas.pipeline.pipeline_folder import require_folder
from nas.pipeline.sample import PIPELINE, TEACHER_GUIDANCE
from nas.training.noise import TIME_SCALE, few_step_times
from nas.training.pipeline import MODEL_INDEX, PatchDecoder, WordEncoder, load_pipeline, make_scheduler

if TYPE_CHECKING:
    from nas.config.run import ExportSection
    from nas.core.scenario import Scenario
    from nas.training.pipeline import VideoPipeline
    from search_spaces.backbone import BackboneSpec

# What text encoders of folders are tried on.
CAPTION = "a red ball rolls over the grass"
LICENCES = ("LICENSE*", "LICENCE*", "license*", "licence*", "NOTICE*")
_FPS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Text encoder, decoder and sampling of a denoiser; networks are read when they are called for.

    Attributes:
        sampling: How the packages are used.
        scheduler: diffusers' scheduler with that configuration.
        text: Makes the text encoder; None where there is none.
        decoder: Makes the decoder; None where there is none.
        write_tokenizer: Writes the tokenizer into a folder.
        licences: Files to take along.
        missing: Absent part and why.
    """

    sampling: BundleSampling
    scheduler: Any
    text: Callable[[AttentionForm], Component] | None = None
    decoder: Callable[[AttentionForm], Component] | None = None
    write_tokenizer: Callable[[Path], None] | None = None
    licences: tuple[Path, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def find_surroundings(
    section: ExportSection, *, trained: Path, backbone: BackboneSpec, scenario: Scenario
) -> Surroundings:
    """Find what there is around a denoiser, and hold it against the denoiser; nothing is converted.

    Args:
        section: Of the YAML: ``pipeline``, a local diffusers folder, and ``decoder_frames``.
        trained: Folder of the network's training, which has its own pipeline; it need not exist.
        backbone: Of the denoiser.
        scenario: Frames and size.

    Raises:
        InputError: The folder lacks a part, or does not fit the denoiser or what it was trained on.
        UnavailableError: A text encoder of the folder needs transformers, which is not installed.
    """
    own = load_pipeline(trained / PIPELINE, with_denoiser=False) if _has_pipeline(trained) else None
    sampling = _sampling(own, section, backbone, scenario)
    scheduler = own.scheduler if own is not None else make_scheduler("euler")
    latent_size = backbone.latent_size(scenario)
    if section.pipeline is not None:
        folder = Path(section.pipeline)
        require_folder(folder, backbone)
        _require_trained_on(own, folder)
        _require_transformers(folder)
        return Surroundings(
            sampling=sampling,
            scheduler=scheduler,
            text=partial(_clip, folder, backbone.text_tokens),
            decoder=partial(_vae, folder, section.decoder_frames, latent_size),
            write_tokenizer=partial(copy_clip_tokenizer, folder / "tokenizer"),
            licences=tuple(sorted(path for form in LICENCES for path in folder.glob(form) if path.is_file())),
        )
    words = own.text_encoder if own is not None else None
    codec = own.codec if own is not None else None
    if isinstance(words, WordEncoder) and isinstance(codec, PatchDecoder):
        encoder = words.encoder
        return Surroundings(
            sampling=sampling,
            scheduler=scheduler,
            text=lambda _attention: word_component(encoder, " ".join(encoder.vocabulary[: encoder.num_tokens])),
            decoder=partial(_patches, codec.codec, section.decoder_frames, latent_size),
            write_tokenizer=partial(write_words, encoder.vocabulary),
        )
    why = "the network was trained on latents and text encoded beforehand" if own else "the network is untrained"
    return Surroundings(
        sampling=sampling,
        scheduler=scheduler,
        missing=dict.fromkeys(
            ("text_encoder", "decoder", TOKENIZER), f"{why}; export.pipeline names a folder that has one"
        ),
    )


def write_files(surroundings: Surroundings, folder: Path) -> tuple[str, ...]:
    """Write tokenizer, scheduler and licences into a bundle; return the names of the licences there."""
    if surroundings.write_tokenizer is not None:
        surroundings.write_tokenizer(folder / TOKENIZER)
    surroundings.scheduler.save_pretrained(folder / SCHEDULER)
    names = []
    for path in surroundings.licences:
        (folder / "licences").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "licences" / path.name)
        names.append(f"licences/{path.name}")
    return tuple(names)


def _has_pipeline(trained: Path) -> bool:
    return (trained / PIPELINE / MODEL_INDEX).is_file()


def _sampling(
    own: VideoPipeline | None, section: ExportSection, backbone: BackboneSpec, scenario: Scenario
) -> BundleSampling:
    height, width = backbone.latent_size(scenario)
    if own is None:
        times = few_step_times(scenario.denoising_steps)
        guidance, fps, renoise = (TEACHER_GUIDANCE if scenario.guidance else 1.0), _FPS, False
    else:
        times = tuple(own.settings.times)
        guidance, fps, renoise = own.settings.guidance, own.settings.fps, own.scheduler.config.stochastic_sampling
    return BundleSampling(
        times=times,
        time_scale=TIME_SCALE,
        sampler="renoise" if renoise else "euler",
        guidance=float(guidance),
        latent_shape=(scenario.frames, backbone.latent_channels, height, width),
        decoder_frames=section.decoder_frames,
        fps=float(fps),
    )


def _require_trained_on(own: VideoPipeline | None, folder: Path) -> None:
    """Hold a folder against the encoders of the training data; a small decoder may stand in for the VAE itself."""
    if own is None:
        return
    identity = dict(own.settings.encoder)
    if identity.get("type") != "pretrained":
        raise InputError(
            f"{folder}: the network was trained with a caption encoder and codec of its own",
            hint="leave export.pipeline out; the bundle takes those",
        )
    parts = ["text_encoder", "tokenizer"]
    if "AutoencoderTiny" not in (folder / "vae" / "config.json").read_text(encoding="utf-8"):
        parts.append("vae")
    other = [name for name in parts if sha256_path(folder / name)[:16] != identity.get(name)]
    if other:
        raise InputError(
            f"{folder}: the network was trained on latents and text of other encoders: {', '.join(other)} differ",
            hint="name the folder in export.pipeline that `nas data encode --encoder` was given",
        )


def _require_transformers(folder: Path) -> None:
    from nas.export.tokenizer import read_tokenizer

    read_tokenizer(folder / "tokenizer", num_tokens=1)


def _clip(folder: Path, num_tokens: int, attention: AttentionForm) -> Component:
    tokenizer, model = load_clip_text(folder / "tokenizer", folder / "text_encoder")
    ids = clip_ids(tokenizer, [CAPTION], num_tokens=num_tokens)
    return clip_component(model.float(), ids, attention=attention)


def _vae(folder: Path, frames: int, latent_size: tuple[int, int], attention: AttentionForm) -> Component:
    vae = load_frame_decoder(folder / "vae").float()
    return vae_component(vae, frames=frames, latent_size=latent_size, attention=attention)


def _patches(codec: Any, frames: int, latent_size: tuple[int, int], _attention: AttentionForm) -> Component:
    return patch_component(
        components=codec.components,
        scale=codec.scale,
        mean=codec.mean,
        patch=codec.patch,
        frames=frames,
        latent_size=latent_size,
    )
