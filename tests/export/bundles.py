"""A whole manifest without packages behind it: files of text stand for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import search_spaces
from nas.core.artefacts import ParityReport, ParityRow, StructureCheck
from nas.core.scenario import Scenario
from nas.export.bundle import (
    Bundle,
    BundleComponent,
    BundleFile,
    BundlePackage,
    BundlePort,
    BundleSampling,
    SecondOpinion,
    TimeEmbedding,
    describe_file,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "text_encoder.mlpackage/model",
    "denoiser_1of2.mlpackage/model",
    "denoiser_2of2.mlpackage/model",
    "decoder.mlpackage/model",
    "denoiser.aimodel/main",
    "tokenizer/words.json",
    "scheduler/scheduler_config.json",
    "verification/denoiser.safetensors",
    "licences/LICENSE",
)


def write_files(folder: Path) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def made_bundle(folder: Path, *, without: tuple[str, ...] = ()) -> Bundle:
    """The manifest of ``write_files(folder)``."""

    def file(path: str) -> BundleFile:
        return describe_file(folder, path)

    def package(name: str, takes: str, gives: str) -> BundlePackage:
        return BundlePackage(
            file=file(f"{name}.mlpackage"),
            inputs=(BundlePort(name=takes, shape=(1, 12), dtype="int32", text="Ids."),),
            outputs=(BundlePort(name=gives, shape=(1, 12, 64), dtype="float16"),),
        )

    row = ParityRow(
        output="velocity",
        precision="float32",
        reference="torch, weights as trained",
        max_absolute=1e-3,
        max_relative=1e-3,
        psnr_db=72.0,
        cosine=1.0,
    )
    report = ParityReport(
        inputs="noise", rows=(row,), first_apart=None, activation_peak_bytes=10, weight_bytes=20, decompressed_bytes=20
    )
    components = (
        BundleComponent(
            name="text_encoder",
            packages=(package("text_encoder", "input_ids", "encoder_hidden_states"),),
            text="Caption encoder.",
            calls="once a caption",
            lowering="neural_engine",
        ),
        BundleComponent(
            name="denoiser",
            packages=(package("denoiser_1of2", "sample", "skip"), package("denoiser_2of2", "skip", "velocity")),
            text="Denoiser.",
            calls="once a step",
            lowering="neural_engine",
            compression="palettised to 6 bits",
            checks=(StructureCheck(name="linear operations", expected=3, found=3, passed=True),),
            parity=report,
            verification=file("verification/denoiser.safetensors"),
        ),
        BundleComponent(
            name="decoder",
            packages=(package("decoder", "latents", "pixels"),),
            text="Decoder.",
            calls="every frame",
            lowering="neural_engine",
        ),
    )
    return Bundle(
        architecture=search_spaces.get("tiny").largest(),
        scenario=Scenario(frames=8, height=32, width=32, denoising_steps=4),
        minimum_os="iOS18",
        components=tuple(item for item in components if item.name not in without),
        sampling=BundleSampling(
            times=(1.0, 0.75, 0.5, 0.25),
            time_scale=1000.0,
            sampler="renoise",
            guidance=1.0,
            latent_shape=(8, 16, 4, 4),
            decoder_frames=1,
            fps=8.0,
        ),
        time_embedding=TimeEmbedding(input="time_embedding", channels=48),
        tokenizer=None if "tokenizer" in without else file("tokenizer"),
        scheduler=file("scheduler"),
        licences=(file("licences/LICENSE"),),
        missing=dict.fromkeys(without, "the network is untrained"),
        second_opinion=SecondOpinion(
            by="Core AI 1.0.0b3",
            package=file("denoiser.aimodel"),
            max_absolute=1e-6,
            max_relative=1e-6,
            psnr_db=None,
            convert_seconds=2.0,
            compute_seconds=0.5,
        ),
        versions={"torch": "2.13.0", "coremltools": "9.0"},
    )
