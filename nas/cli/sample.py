"""``nas sample`` and ``nas vbench``: clips of a trained model, and VBench on them."""

from __future__ import annotations

from pathlib import Path

import click

from nas.cli.options import output_options
from nas.cli.output import Console

_MODEL = click.argument("model", metavar="RUN_OR_FOLDER", type=click.Path(path_type=Path))
_ENCODER = click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    help="Folder of the encoders whose latents the model was trained on; the toy task's model has its own.",
)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the noise.")
_DEVICE = click.option("--device", default="cpu", show_default=True, help="Where to compute.")


@click.command()
@_MODEL
@click.option("--caption", "captions", multiple=True, required=True, help="What to show; repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write: .mp4 or .gif.")
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps; the model's own when left out.")
@click.option("--guidance", type=click.FloatRange(min=1.0), help="Weight of guidance; 1 is none.")
@_SEED
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Clips a caption.")
@click.option("--enlarge", type=click.IntRange(min=1), help="Whole factor for the pixels; to 256 px when left out.")
@click.option("--exported", is_flag=True, help="Compute the run's Core ML packages, as their parity checks do.")
@click.option("--architecture", "digest", help="Digest of the network where a run has several.")
@_ENCODER
@_DEVICE
@output_options
def sample(
    model: Path,
    captions: tuple[str, ...],
    out: Path,
    steps: int | None,
    guidance: float | None,
    seed: int,
    count: int,
    enlarge: int | None,
    exported: bool,
    digest: str | None,
    encoder: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Generate clips with the trained network of a run, a pipeline folder, a stage's folder or an exported bundle."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.sample import SampleRequest
        from nas.pipeline.sample import sample as perform

        request = SampleRequest(
            model=model,
            captions=captions,
            out=out,
            steps=steps,
            guidance=guidance,
            seed=seed,
            count=count,
            enlarge=enlarge,
            encoder=encoder,
            device=device,
            digest=digest,
            exported=exported,
        )
        facts = perform(request, progress=console.progress("sample"))
        how = f"{facts['steps']} steps, guidance {facts['guidance']:g}, {facts['calls']} calls of the denoiser"
        if facts["packages"]:
            how += f"; computed from packages: {', '.join(facts['packages'])}"
        lines = [f"{row['file']}: {row['caption']} (seed {row['seed']})" for row in facts["clips"]]
        console.result(facts, "\n".join([*lines, how]))


@click.command()
@_MODEL
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the videos and scores.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="Text file with a prompt a line, or VBench_full_info.json; the toy task's held-out captions when left out.",
)
@click.option("--dimension", "dimensions", multiple=True, help="VBench's; repeatable. All that take any prompt.")
@click.option("--samples", type=click.IntRange(min=1), default=5, show_default=True, help="Videos a prompt.")
@click.option("--videos-only", is_flag=True, help="Write the videos and do not call VBench.")
@_SEED
@_ENCODER
@_DEVICE
@output_options
def vbench(
    model: Path,
    out: Path,
    prompts: Path | None,
    dimensions: tuple[str, ...],
    samples: int,
    videos_only: bool,
    seed: int,
    encoder: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write a model's videos as VBench names them and let VBench score them; exit 6 where it is not installed."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.sample import VBenchRequest, evaluate_with_vbench

        request = VBenchRequest(
            model=model,
            out=out,
            prompts=prompts,
            dimensions=dimensions,
            samples=samples,
            videos_only=videos_only,
            seed=seed,
            encoder=encoder,
            device=device,
        )
        facts = evaluate_with_vbench(request, progress=console.progress("vbench"))
        scores = [f"{name}: {score:.4f}" for name, score in (facts["scores"] or {}).items()]
        console.result(facts, "\n".join([f"{facts['videos']}: {facts['count']} videos", *scores]))
