"""A bundle's packages as a pipeline, computed on this machine: what a phone would do, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nas.export.bundle import SCHEDULER, TOKENIZER, read_bundle, require_complete
from nas.export.packaged import PackagedDenoiser
from nas.export.packaged_coders import PackagedDecoder, PackagedText
from nas.training.pipeline import VideoPipeline, read_scheduler

if TYPE_CHECKING:
    from pathlib import Path

    from nas.models.unet import VideoUNet


def bundled_pipeline(folder: Path) -> VideoPipeline:
    """The pipeline of a complete bundle: every network of it is a package, computed on this machine.

    Raises:
        InputError: The bundle is not complete, or a file of it is missing or changed.
        UnavailableError: A package cannot be computed here, or its tokenizer needs transformers.
    """
    bundle = read_bundle(folder)
    require_complete(bundle, folder)
    denoiser, text, decoder = (
        [folder / package.file.path for item in bundle.components if item.name == name for package in item.packages]
        for name in ("denoiser", "text_encoder", "decoder")
    )
    sampling = bundle.sampling
    pipeline = VideoPipeline(
        denoiser=cast("VideoUNet", PackagedDenoiser(*denoiser)),
        scheduler=read_scheduler(folder / SCHEDULER),
        text_encoder=PackagedText(text[0], folder / TOKENIZER),
        codec=PackagedDecoder(decoder[0]),
        times=sampling.times,
        guidance=sampling.guidance,
        latent_shape=sampling.latent_shape,
        fps=sampling.fps,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
