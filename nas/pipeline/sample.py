"""``nas sample`` and ``nas vbench``: clips of a trained model as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, InputError
from nas.core.files import read_json
from nas.core.schema import check_schema
from nas.export.bundle import BUNDLE_NAME, COMPONENTS, read_bundle
from nas.export.packaged import PackagedDenoiser
from nas.pipeline.bundled import bundled_pipeline
from nas.pipeline.context import find_run
from nas.training.encoders import CODEC_FILE, load_encoders
from nas.training.evaluation import held_out_attributes
from nas.training.noise import FIXED_TIMES
from nas.training.pipeline import (
    MODEL_INDEX,
    VideoPipeline,
    generate_clips,
    load_pipeline,
    make_pipeline,
    on_device,
    save_pipeline,
)
from nas.training.sampling import sampling_times
from nas.training.shards import read_index
from nas.training.stage import load_kit
from nas.training.vbench import (
    CUSTOM_DIMENSIONS,
    VIDEOS,
    PromptSuite,
    check_dimensions,
    read_prompts,
    require_vbench,
    score_videos,
    video_path,
)
from nas.training.video_files import write_clip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.protocols import Progress
    from nas.training.sampling import Sampler
    from nas.training.stage import StageResult

PIPELINE = "pipeline"
# Stages whose networks sample in the few fixed times; others as the teacher is judged, TRAINING section 2.
FEW_STEP_STAGES: tuple[str, ...] = ("trajectory", "adversarial", "consistency", "progressive")
TEACHER_STEPS, TEACHER_GUIDANCE = 25, 3.0
_BATCH = 8
_ENDINGS = (".gif", ".mp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """What ``nas sample`` was asked for; ``None`` is the model's own.

    Attributes:
        model: A run (YAML or directory), a pipeline folder, a stage's folder, or an exported bundle.
        captions: One clip each.
        out: A ``.mp4`` or ``.gif``; with several clips ``-0``, ``-1`` and so on go before the ending.
        steps: Denoising steps.
        guidance: Weight of guidance.
        seed: Of the noise of the first clip; each further clip has the next.
        count: Clips a caption.
        enlarge: Whole factor for the pixels.
        encoder: Folder of pretrained encoders, for a model trained on their latents.
        device: Where to compute.
        digest: Which trained network of a run.
        exported: Compute the run's Core ML packages instead of its networks: all of a complete bundle, the denoiser of
            another.
    """

    model: Path
    captions: tuple[str, ...]
    out: Path
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    count: int = 1
    enlarge: int | None = None
    encoder: Path | None = None
    device: str = "cpu"
    digest: str | None = None
    exported: bool = False


def sample(request: SampleRequest, *, progress: Progress) -> dict[str, Any]:
    """Generate clips and write them; returns what was written and how.

    Raises:
        ConfigError: A word is unknown, or the file's ending.
        InputError: The model is missing or damaged.
    """
    if request.out.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{request.out}: must end in {' or '.join(_ENDINGS)}")
    pipeline, packaged = _opened(request)
    captions = [caption for caption in request.captions for _ in range(request.count)]
    paths = [_numbered(request.out, place, len(captions)) for place in range(len(captions))]
    for begin in range(0, len(captions), _BATCH):
        progress.update(begin, len(captions), "sampling")
        part = slice(begin, begin + _BATCH)
        clips = generate_clips(
            pipeline, captions[part], first_seed=request.seed + begin, steps=request.steps, guidance=request.guidance
        )
        for path, clip in zip(paths[part], clips, strict=True):
            write_clip(path, clip, fps=pipeline.settings.fps, factor=request.enlarge)
    progress.update(len(captions), len(captions), "sampling")
    steps = request.steps or len(pipeline.settings.times)
    guidance = pipeline.settings.guidance if request.guidance is None else request.guidance
    rows = [
        {"file": str(path), "caption": caption, "seed": request.seed + place}
        for place, (path, caption) in enumerate(zip(paths, captions, strict=True))
    ]
    calls = steps * (1 if guidance == 1.0 else 2)
    return {"clips": rows, "steps": steps, "guidance": guidance, "calls": calls, "packages": list(packaged)}


@dataclass(frozen=True, slots=True, kw_only=True)
class VBenchRequest:
    """What ``nas vbench`` was asked for.

    Attributes:
        model: As in ``SampleRequest``.
        out: Folder that gets ``videos/``, VBench's files and ``vbench.json``.
        prompts: Text file, or VBench's own; the toy task's held-out captions without it.
        dimensions: Of VBench; those for any prompt without it.
        samples: Videos a prompt; VBench's suite wants five.
        videos_only: Write the videos and leave VBench out.
        seed: Of the first video.
        encoder: As in ``SampleRequest``.
        device: Where to compute.
    """

    model: Path
    out: Path
    prompts: Path | None = None
    dimensions: tuple[str, ...] = ()
    samples: int = 5
    videos_only: bool = False
    seed: int = 0
    encoder: Path | None = None
    device: str = "cpu"


def evaluate_with_vbench(request: VBenchRequest, *, progress: Progress) -> dict[str, Any]:
    """Write a model's videos as VBench names them, and its scores where it is installed.

    Raises:
        ConfigError: A dimension or a prompt does not fit.
        InputError: The model or the prompts are missing or damaged.
        UnavailableError: VBench is not installed.
    """
    if not request.videos_only:
        require_vbench()
    dimensions = request.dimensions or CUSTOM_DIMENSIONS
    suite = _suite(request.prompts, dimensions)
    check_dimensions(dimensions, standard=suite.standard is not None)
    pipeline = open_pipeline(request.model, encoder=request.encoder, device=request.device)
    wanted = [(prompt, index) for prompt in suite.prompts for index in range(request.samples)]
    for place, (prompt, index) in enumerate(wanted):
        progress.update(place, len(wanted), "videos")
        path = video_path(request.out, prompt, index)
        if path.is_file():
            continue  # an earlier run was killed
        clip = generate_clips(pipeline, [prompt], first_seed=request.seed + place)[0]
        write_clip(path, clip, fps=pipeline.settings.fps, factor=1)
    progress.update(len(wanted), len(wanted), "videos")
    facts: dict[str, Any] = {"videos": str(request.out / VIDEOS), "count": len(wanted), "scores": None}
    if not request.videos_only:
        facts["scores"] = score_videos(request.out, suite, dimensions=dimensions, device=request.device)
    return facts


def write_pipeline(
    result: StageResult, folder: Path, *, times: tuple[float, ...], shards: Path | None, sampler: Sampler = "euler"
) -> None:
    """Keep a trained stage as a pipeline.

    Args:
        result: The stage; one before the few steps is kept with the teacher's steps and guidance.
        folder: Where.
        times: Of the few steps.
        shards: Folder of the training data where that was encoded beforehand; fitted encoders are taken from it, of
            pretrained ones only the identity is kept.
        sampler: How a few-step stage is sampled.
    """
    few = result.stage in FEW_STEP_STAGES
    pipeline = make_pipeline(
        result.kit,
        times=times if few else sampling_times(TEACHER_STEPS)[:-1],
        guidance=1.0 if few else TEACHER_GUIDANCE,
        sampler=sampler if few else "euler",
        encoder=read_index(shards).encoder if shards is not None else None,
    )
    if shards is not None and (shards / CODEC_FILE).is_file():
        pipeline.give_encoders(load_encoders(shards))
    save_pipeline(pipeline, folder)


def open_pipeline(
    model: Path, *, digest: str | None = None, encoder: Path | None = None, device: str = "cpu"
) -> VideoPipeline:
    """The pipeline of a run, of a pipeline folder, or of a stage's folder.

    Raises:
        InputError: There is no trained model, or a file of it is damaged.
        ConfigError: A run has several trained networks and none is named.
    """
    if (model / MODEL_INDEX).is_file():
        pipeline = load_pipeline(model)
    elif (model / "stage.json").is_file():
        pipeline = _of_stage(model)
    else:
        pipeline = _of_run(model, digest)
    if encoder is not None:
        pipeline.give_encoders(load_encoders(encoder, device=device))
    if pipeline.text_encoder is None or pipeline.codec is None:
        raise InputError(
            f"{model}: the model was trained on latents and text encoded beforehand, and has no encoders of its own",
            hint="add --encoder with the folder that `nas data encode` was given",
        )
    return on_device(pipeline, device)


def _numbered(path: Path, place: int, count: int) -> Path:
    return path if count == 1 else path.with_stem(f"{path.stem}-{place}")


def _suite(prompts: Path | None, dimensions: tuple[str, ...]) -> PromptSuite:
    if prompts is not None:
        return read_prompts(prompts, dimensions=dimensions)
    return PromptSuite(prompts=tuple(sorted(set(held_out_attributes(18, seed=0).captions()))))


def _of_stage(folder: Path) -> VideoPipeline:
    body = check_schema(read_json(folder / "stage.json"), "training_stage", 1, where=str(folder / "stage.json"))
    kit = load_kit(folder)
    if body.get("stage") in FEW_STEP_STAGES:
        return make_pipeline(kit, times=FIXED_TIMES, sampler=_sampler(body))
    return make_pipeline(kit, times=sampling_times(TEACHER_STEPS)[:-1], guidance=TEACHER_GUIDANCE)


def _sampler(stage: Mapping[str, Any]) -> Sampler:
    """How a few-step stage is sampled: those that do not take Euler steps say so among their options."""
    return "renoise" if stage.get("options", {}).get("sampler") == "renoise" else "euler"


def _opened(request: SampleRequest) -> tuple[VideoPipeline, tuple[str, ...]]:
    """The pipeline, and which of its networks are packages: those of a bundle, or the denoiser alone."""
    bundle = request.model if (request.model / BUNDLE_NAME).is_file() else None
    packaged = request.exported or bundle is not None
    if packaged and request.device != "cpu":
        raise ConfigError(f"packages are computed on the CPU here, got device {request.device!r}")
    if packaged and bundle is None:
        found = _export_folder(request.model, request.digest)
        complete = (found / BUNDLE_NAME).is_file() and not read_bundle(found).missing
        bundle = found if complete and request.encoder is None else None
    if bundle is not None:
        return bundled_pipeline(bundle), COMPONENTS
    pipeline = open_pipeline(request.model, digest=request.digest, encoder=request.encoder, device=request.device)
    if not packaged:
        return pipeline, ()
    pipeline.register_modules(denoiser=PackagedDenoiser(*_denoiser_packages(found)))
    return pipeline, ("denoiser",)


def _export_folder(run: Path, digest: str | None) -> Path:
    """Folder of the export of a run's trained network, or of the only export of a run that trained none."""
    directory = find_run(str(run))[1]
    made = (
        [] if directory is None else sorted(path.parent for path in (directory.path / "export").glob("*/export.json"))
    )
    if digest is None and len(made) == 1 and not (made[0].parents[1] / "train" / made[0].name).is_dir():
        return made[0]
    folder = _trained_folder(run, digest)
    return folder.parents[1] / "export" / folder.name


def _denoiser_packages(folder: Path) -> list[Path]:
    found = sorted(folder.glob("denoiser*.mlpackage"))
    if not found:
        raise InputError(
            f"{folder.parents[1]}: network {folder.name} has no exported package",
            hint=f"nas export {folder.parents[1]}",
        )
    return found


def _of_run(run: Path, digest: str | None) -> VideoPipeline:
    folder = _trained_folder(run, digest)
    if (folder / PIPELINE / MODEL_INDEX).is_file():
        return load_pipeline(folder / PIPELINE)
    body = check_schema(read_json(folder / "model.json"), "trained_model", 1, where=str(folder / "model.json"))
    return _of_stage((folder.parents[1] / body["folder"]).parent)


def _trained_folder(run: Path, digest: str | None) -> Path:
    """Folder of a run's trained network."""
    directory = find_run(str(run))[1]
    if directory is None:
        raise InputError(f"{run}: there is no run of these settings yet", hint=f"start it: nas run {run}")
    trained = {path.parent.name: path.parent for path in sorted((directory.path / "train").glob("*/model.json"))}
    if not trained:
        raise InputError(f"{directory.path}: has no trained network", hint=f"nas train {run}")
    if digest is None and len(trained) > 1:
        raise ConfigError(
            f"{directory.path}: has {len(trained)} trained networks: {', '.join(trained)}",
            hint="name one with --architecture",
        )
    found = [name for name in trained if digest is None or name.startswith(digest)]
    if len(found) != 1:
        raise ConfigError(f"no trained network {digest!r}; there are {', '.join(trained)}")
    return trained[found[0]]
