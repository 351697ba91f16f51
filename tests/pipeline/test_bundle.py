"""An exported folder that turns captions into frames: from the toy's own parts, and from a local diffusers folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderTiny

import search_spaces
from nas.cli.main import main
from nas.config.compression import CompressionSection
from nas.config.run import ExportSection, WeightsSection
from nas.core.errors import InputError, UnavailableError
from nas.core.scenario import Scenario
from nas.export.bundle import read_bundle
from nas.export.denoiser import export_denoiser
from nas.export.metadata import ExportMetadata
from nas.models.build import build_denoiser
from nas.models.caption import CaptionEncoder
from nas.pipeline.bundle import bundle_completion
from nas.pipeline.bundled import bundled_pipeline
from nas.pipeline.compress import compression_of
from nas.pipeline.pipeline_folder import folder_faults
from nas.pipeline.surroundings import find_surroundings, write_files
from nas.training.clips import VOCABULARY
from nas.training.codec import fit_codec
from nas.training.pipeline import generate_clips, load_pipeline, make_pipeline, save_pipeline
from nas.training.stage import Kit
from nas.training.video_files import ClipFormat, read_video
from tests.export.fake_coreai import FakeCoreAi, small_component

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.core.artefacts import ExportedModel
    from nas.training.pipeline import VideoPipeline

BACKBONE = search_spaces.get("tiny").backbone
SCENARIO = Scenario(frames=2, height=32, width=32, denoising_steps=4)
CAPTION = "a red circle moving left slowly"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training, with a pipeline of two frames that takes two steps with fresh noise between."""
    torch.manual_seed(0)
    space = search_spaces.get("tiny")
    kit = Kit(
        denoiser=build_denoiser(space, space.smallest()),
        captions=CaptionEncoder(vocabulary=VOCABULARY, width=64, num_tokens=12),
        codec=fit_codec(patch=8, channels=16, seed=0, num_clips=32),
        latent_shape=(2, 16, 4, 4),
    )
    folder = tmp_path_factory.mktemp("train")
    save_pipeline(make_pipeline(kit, times=(1.0, 0.5), sampler="renoise"), folder / "pipeline")
    return folder


@pytest.fixture(scope="module")
def bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "network"
    denoiser = load_pipeline(trained / "pipeline").denoiser
    complete = bundle_completion(
        ExportSection(parity=False, decoder_frames=2),
        trained=trained,
        backbone=BACKBONE,
        scenario=SCENARIO,
        lowering="gpu",
        metadata=ExportMetadata(),
    )
    export_denoiser(denoiser, SCENARIO, folder, lowering="gpu", parity=False, complete=complete)
    return folder


def test_a_caption_becomes_frames_through_packages_alone(trained: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["sample", str(bundle), "--caption", CAPTION, "--out", str(tmp_path / "clip.gif"), "--json", "-q"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["steps"], facts["packages"]) == (2, ["text_encoder", "denoiser", "decoder"])
    assert read_video(tmp_path / "clip.gif", ClipFormat(frames=2, size=256, fps=8)).shape == (2, 3, 256, 256)
    found = generate_clips(bundled_pipeline(bundle), [CAPTION], first_seed=3)
    expected = generate_clips(load_pipeline(trained / "pipeline"), [CAPTION], first_seed=3)
    assert np.abs(found.astype(int) - expected).max() <= 4  # of 255; packages round to float16


def test_the_manifest_says_how_the_packages_are_used(bundle: Path) -> None:
    found = read_bundle(bundle)
    assert [component.name for component in found.components] == ["text_encoder", "denoiser", "decoder"]
    assert found.missing == {}
    assert (found.sampling.times, found.sampling.sampler, found.sampling.guidance) == ((1.0, 0.5), "renoise", 1.0)
    assert found.sampling.latent_shape == (2, 16, 4, 4)
    assert [component.calls for component in found.components] == [
        "once a caption",
        "2 steps of a clip",
        "1 times a clip, 2 of 2 frames each",
    ]
    assert json.loads((bundle / "scheduler" / "scheduler_config.json").read_text())["stochastic_sampling"] is True
    card = (bundle / "model_card.md").read_text()
    assert "It is complete: a caption goes in, frames come out." in card
    assert "For each time `t` of 1, 0.5" in card
    assert found.time_embedding is not None
    assert (found.time_embedding.input, found.time_embedding.channels) == ("time_embedding", BACKBONE.base_channels)
    assert "`time_embedding` has 48 channels" in card
    assert "(1 - s) (x - t v) + s e" in card


def test_a_compressed_bundle_says_so_and_is_verified(trained: Path, tmp_path: Path) -> None:
    compression, weights = CompressionSection(), WeightsSection(bits=4, form="palettised")
    folder, metadata = tmp_path / "network", ExportMetadata(costed_weights="linear 8")
    complete = bundle_completion(
        ExportSection(parity="quick", decoder_frames=2),
        trained=tmp_path / "none",
        backbone=BACKBONE,
        scenario=SCENARIO,
        lowering="gpu",
        metadata=metadata,
    )
    model = export_denoiser(
        load_pipeline(trained / "pipeline").denoiser,
        SCENARIO,
        folder,
        lowering="gpu",
        metadata=metadata,
        parity="quick",
        compress=compression_of(compression, weights, cache=tmp_path / "cache"),
        complete=complete,
    )
    layers = json.loads((folder / "compression.json").read_text())["layers"]
    component = read_bundle(folder).component("denoiser")
    assert component is not None
    assert component.compression == model.weights == f"{len(layers)} weights palettize 4"
    assert model.package_bytes == component.packages[0].file.num_bytes < 0.4 * 2 * model.parameters
    card = (folder / "model_card.md").read_text()
    assert f"| stored weights | {model.weights} |" in card
    assert "weights in linear 8, which are not those of the package" in card
    assert f"| {model.weights} |" in card.partition("## Bundle")[2].partition("## Use")[0]
    result = CliRunner().invoke(main, ["verify", str(folder), "--json", "-q"])
    assert result.exit_code == 0, result.stderr


def test_a_changed_bundle_is_not_sampled(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "tokenizer" / "words.json").write_text("{}")
    result = CliRunner().invoke(main, ["sample", str(copy), "--caption", CAPTION, "--out", str(tmp_path / "clip.gif")])
    assert result.exit_code == 3
    assert "tokenizer has changed since the export" in result.stderr


def test_an_untrained_network_has_nothing_around_it(tmp_path: Path) -> None:
    around = find_surroundings(ExportSection(), trained=tmp_path, backbone=BACKBONE, scenario=SCENARIO)
    assert set(around.missing) == {"text_encoder", "decoder", "tokenizer"}
    assert "the network is untrained; export.pipeline names a folder" in around.missing["decoder"]
    assert around.sampling.times == (1.0, 0.75, 0.5, 0.25)
    guided = replace(SCENARIO, guidance=True)
    found = find_surroundings(ExportSection(), trained=tmp_path, backbone=BACKBONE, scenario=guided)
    assert found.sampling.guidance == 3.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `nas config check` looks at of a diffusers folder that fits the toy space: settings and names of files."""
    for name, config, weights in (
        (
            "text_encoder",
            {"architectures": ["CLIPTextModel"], "hidden_size": 64, "max_position_embeddings": 12},
            "model.safetensors",
        ),
        (
            "vae",
            {"_class_name": "AutoencoderKL", "latent_channels": 16, "block_out_channels": [8, 8, 8, 8]},
            "diffusion_pytorch_model.safetensors",
        ),
    ):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "config.json").write_text(json.dumps(config))
        (tmp_path / "model" / name / weights).write_text("")
    (tmp_path / "model" / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "model" / "tokenizer" / name).write_text("")
    return tmp_path / "model"


def changed(part: str, **settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def pickled(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "has no vae; needed are text_encoder, tokenizer, vae"),
        (lambda folder: shutil.rmtree(folder), "is no folder; needed is one as diffusers saves a pipeline"),
        (
            pickled,
            "needs diffusion_pytorch_model.safetensors, there is only diffusion_pytorch_model.bin, which is pickled",
        ),
        (lambda folder: (folder / "text_encoder" / "model.safetensors").unlink(), "model.safetensors, there is none"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), "config.json: does not exist"),
        (lambda folder: (folder / "vae" / "config.json").write_text("[1]"), "holds no settings, a list"),
        (lambda folder: (folder / "tokenizer" / "merges.txt").unlink(), "neither tokenizer.json nor vocab.json"),
        (changed("text_encoder", hidden_size=768), "hidden_size is 768, the text that tiny takes is 64 wide"),
        (changed("text_encoder", max_position_embeddings=77), "is 77, the text that tiny takes is 12 long"),
        (changed("text_encoder", architectures=["T5EncoderModel"]), "['T5EncoderModel'], needed is 'CLIPTextModel'"),
        (changed("vae", latent_channels=4), "latent_channels is 4, the latents of tiny have 16"),
        (changed("vae", block_out_channels=[8, 8]), "2 levels make 2 px of a latent cell, a cell of tiny is 8 px"),
        (changed("vae", _class_name="VQModel"), "is 'VQModel', needed is 'AutoencoderKL' or 'AutoencoderTiny'"),
        (changed("vae", latents_mean=[0.0]), "latents have a mean and spread for each channel"),
    ],
)
def test_a_folder_that_does_not_fit_is_named_before_anything_is_converted(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    assert folder_faults(folder, BACKBONE) == []
    change(folder)
    (fault,) = folder_faults(folder, BACKBONE)
    assert message in fault
    section = ExportSection(pipeline=str(folder))
    with pytest.raises(InputError, match=re.escape(message)):
        find_surroundings(section, trained=tmp_path, backbone=BACKBONE, scenario=SCENARIO)


def test_all_faults_of_a_folder_are_named_at_once(folder: Path) -> None:
    changed("vae", latent_channels=4)(folder)
    changed("text_encoder", hidden_size=768)(folder)
    shutil.rmtree(folder / "tokenizer")
    assert len(folder_faults(folder, BACKBONE)) == 3


def test_the_runs_check_names_the_key(folder: Path, tmp_path: Path) -> None:
    changed("vae", latent_channels=4)(folder)
    (tmp_path / "run.yaml").write_text(
        "run: {name: x}\nspace: {name: tiny}\nscenario: {frames: 8, height: 32, width: 32}\n"
        f"device: {{name: host-cpu}}\nexport:\n  pipeline: {folder}\n"
    )
    result = CliRunner().invoke(main, ["config", "check", str(tmp_path / "run.yaml")])
    assert result.exit_code == 2
    assert "6:3" in result.stderr
    assert "export.pipeline" in result.stderr
    assert "latent_channels is 4" in result.stderr


def test_a_network_with_encoders_of_its_own_takes_no_others(folder: Path, trained: Path) -> None:
    section = ExportSection(pipeline=str(folder))
    with pytest.raises(InputError, match="trained with a caption encoder and codec of its own"):
        find_surroundings(section, trained=trained, backbone=BACKBONE, scenario=SCENARIO)


def test_a_network_takes_the_encoders_it_was_trained_on(folder: Path, trained: Path, tmp_path: Path) -> None:
    pipeline: VideoPipeline = load_pipeline(trained / "pipeline")
    pipeline.register_modules(text_encoder=None, codec=None)
    pipeline.register_to_config(encoder={"type": "pretrained", "text_encoder": "0", "tokenizer": "0", "vae": "0"})
    save_pipeline(pipeline, tmp_path / "train" / "pipeline")
    section = ExportSection(pipeline=str(folder))
    with pytest.raises(InputError, match="other encoders: text_encoder, tokenizer, vae differ"):
        find_surroundings(section, trained=tmp_path / "train", backbone=BACKBONE, scenario=SCENARIO)


def test_a_folder_needs_transformers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    section = ExportSection(pipeline=str(folder))
    with pytest.raises(UnavailableError, match="needs transformers, which is not installed"):
        find_surroundings(section, trained=tmp_path, backbone=BACKBONE, scenario=SCENARIO)


def test_a_second_opinion_is_in_manifest_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCoreAi(error=1e-5).install(monkeypatch)
    (tmp_path / "bundle").mkdir()
    complete = bundle_completion(
        ExportSection(coreai=True),
        trained=tmp_path,
        backbone=BACKBONE,
        scenario=SCENARIO,
        lowering="gpu",
        metadata=ExportMetadata(),
    )
    record = SimpleNamespace(
        architecture=search_spaces.get("tiny").smallest(), minimum_os="iOS18", weights="float16", checks=(), parity=None
    )
    card = complete(tmp_path / "bundle", small_component(), cast("ExportedModel", record))
    opinion = read_bundle(tmp_path / "bundle").second_opinion
    assert opinion is not None
    assert opinion.package.path == "denoiser.aimodel"
    assert opinion.max_absolute == pytest.approx(1e-5, rel=0.05)
    assert "## Second opinion" in card
    assert "It is not complete. **text_encoder is missing**: the network is untrained" in card


def test_core_ai_is_asked_for_before_anything_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coreai", None)
    with pytest.raises(UnavailableError, match=r"export\.coreai needs coreai-core"):
        bundle_completion(
            ExportSection(coreai=True),
            trained=tmp_path,
            backbone=BACKBONE,
            scenario=SCENARIO,
            lowering="gpu",
            metadata=ExportMetadata(),
        )


def test_a_diffusers_folder_gives_text_encoder_decoder_tokenizer_and_licence(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the text extra is not installed")
    folder = tmp_path / "model"
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    files = (str(folder / "tokenizer" / "vocab.json"), str(folder / "tokenizer" / "merges.txt"))
    transformers.CLIPTokenizer(*files).save_pretrained(folder / "tokenizer")
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    levels = {f"{side}_block_out_channels": (4,) * 4 for side in ("encoder", "decoder")}
    AutoencoderTiny(**levels, latent_channels=16).save_pretrained(folder / "vae")
    (folder / "LICENSE.md").write_text("Some licence.")
    section = ExportSection(pipeline=str(folder), decoder_frames=2)
    around = find_surroundings(section, trained=tmp_path, backbone=BACKBONE, scenario=SCENARIO)
    assert around.text is not None
    assert around.decoder is not None
    text, decoder = around.text("fused"), around.decoder("fused")
    assert text.examples["input_ids"].shape == (1, 12)
    assert text.inputs[0].dtype == "int32"
    assert decoder.inputs[0].shape == (2, 16, 4, 4)
    assert write_files(around, tmp_path / "bundle") == ("licences/LICENSE.md",)
    assert (tmp_path / "bundle" / "licences" / "LICENSE.md").read_text() == "Some licence."
    assert (tmp_path / "bundle" / "tokenizer" / "tokenizer_config.json").is_file()
    assert json.loads((tmp_path / "bundle" / "scheduler" / "scheduler_config.json").read_text())["shift"] == 1.0
