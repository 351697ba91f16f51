"""``nas data``: encode clips into shards for training, and look at shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.cli.options import output_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from typing import Literal


def _share(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    first, _, count = value.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise click.BadParameter(f"{value!r} is not K/N with K from 1 to N, such as 2/4")
    return int(first), int(count)


@click.group()
def data() -> None:
    """Encode clips into shards that training reads, and look at shards."""


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the shards.")
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    help="Folder with vae, tokenizer and text_encoder as diffusers saves them, or a trained stage of the toy task. "
    "Without it the toy task's encoders are fitted to the clips.",
)
@click.option("--space", default="tiny", show_default=True, help="Space that fitted encoders of a folder are for.")
@click.option("--frames", type=click.IntRange(min=1), help="Frames of a clip.")
@click.option("--size", type=click.IntRange(min=8), help="Height and width of a clip in pixels.")
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    default=8.0,
    show_default=True,
    help="Frames a second taken from videos.",
)
@click.option("--clips", type=click.IntRange(min=1), help="Number of procedural clips; train.clips of the YAML.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of procedural clips and fitted encoders.")
@click.option(
    "--missing-captions",
    type=click.Choice(["skip", "empty"]),
    default="skip",
    show_default=True,
    help="Leave out files without a caption, or give them the empty one.",
)
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True,
    help="Number format on disk.",
)  # fmt: skip
@click.option("--clips-per-shard", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Clips encoded at once.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that read clips.")
@click.option(
    "--share",
    default="1/1",
    show_default=True,
    metavar="K/N",
    callback=_share,
    help="Make every N-th shard from the K-th: N commands, each on its own machine or device, fill one folder.",
)
@click.option("--device", default="cpu", show_default=True, help="Where a pretrained encoder runs.")
@output_options
def encode(
    source: Path,
    out: Path,
    encoder: Path | None,
    space: str,
    frames: int | None,
    size: int | None,
    fps: float,
    clips: int | None,
    seed: int | None,
    missing_captions: Literal["skip", "empty"],
    dtype: Literal["float32", "float16", "bfloat16"],
    clips_per_shard: int,
    batch_size: int,
    workers: int,
    share: tuple[int, int],
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write latents and text embeddings of SOURCE, a folder of captioned files or a run's YAML, into shards.

    A folder has mp4, webm, mov, mkv, avi, gif or image files, and captions.csv, captions.json or captions.jsonl, or a
    text file beside each. Files that cannot be read are left out and listed in skipped.jsonl. A command that was killed
    goes on when it is given again.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.data import EncodeRequest
        from nas.pipeline.data import encode as perform
        from nas.training.shard_writer import ShardOptions

        request = EncodeRequest(
            source=source,
            out=out,
            encoder=encoder,
            space=space,
            frames=frames,
            size=size,
            fps=fps,
            clips=clips,
            seed=seed,
            missing_captions=missing_captions,
            device=device,
            shards=ShardOptions(
                clips_per_shard=clips_per_shard, dtype=dtype, batch_size=batch_size, workers=workers, share=share
            ),
        )
        facts, text = perform(request, progress=console.progress("encode"))
        console.result(facts, text)


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Compare the SHA-256 of every file with the index.")
@output_options
def inspect(folder: Path, verify: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Print what the shards in FOLDER hold; exit 3 when a file is missing or damaged."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.data import inspect as look

        facts, text = look(folder, verify=verify)
        console.result(facts, text)
