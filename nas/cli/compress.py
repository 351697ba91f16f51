"""The verb ``compress``: a float16 package in, a smaller one and the record of its errors out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import output_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = ("palettize", "linear", "sparse", "mixed")


@click.command()
@click.argument("package", metavar="PACKAGE")
@click.option("--output", required=True, metavar="OUT", help="The .mlpackage to write; must not exist.")
@click.option("--type", "kind", type=click.Choice(_TYPES), default="palettize", show_default=True, help="Form.")
@click.option("--bits", type=int, help="Of a weight: palettize 1, 2, 3, 4, 6, 8; linear 4, 8; sparse 16 x share kept.")
@click.option("--group-size", type=click.IntRange(min=1), help="Output channels that share a look-up table.")
@click.option("--block-size", type=click.IntRange(min=1), help="Input channels that share a step of linear weights.")
@click.option("--weight-threshold", type=click.IntRange(min=0), default=2048, show_default=True, help="Least size.")
@click.option("--package-mb", type=float, help="Size that a mixed plan has to fit, MB of 1e6 bytes.")
@click.option(
    "--sensitivity",
    type=click.Choice(("auto", "output", "layer")),
    default="auto",
    show_default=True,
    help="Whether a mixed plan measures how much of each layer's error reaches the outputs.",
)
@click.option("--min-psnr-db", type=float, help="Refuse a package less exact than this.")
@click.option("--inputs", metavar="FILE", help="Recorded inputs, safetensors; default: the export's own, else noise.")
@click.option("--cache", metavar="DIR", help="Where fitted tables and errors are kept; default: beside OUT.")
@output_options
def compress(
    package: str,
    output: str,
    kind: str,
    inputs: str | None,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """Compress the weights of PACKAGE, a float16 .mlpackage, and report the error against float32.

    `--type mixed --package-mb N` chooses a form for each weight by its measured error. What was fitted and measured is
    kept in the cache: a killed run, or one for another size, goes on from there.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.compress import compress_file

        result = compress_file(
            Path(package),
            Path(output),
            {"type": kind, **settings},
            inputs=Path(inputs) if inputs else None,
            cache=Path(cache) if cache else None,
            progress=console.progress("compress"),
        )
        console.result(result, "\n".join(_lines(output, result)))


def _lines(output: str, result: Mapping[str, Any]) -> list[str]:
    counts: dict[str, int] = {}
    for layer in result["layers"]:
        counts[layer["form"]] = counts.get(layer["form"], 0) + 1
    forms = ", ".join(f"{count} {form}" for form, count in sorted(counts.items(), key=lambda item: -item[1]))
    lines = [
        f"{output}: {result['package_bytes'] / 1e6:.2f} MB of {result['source_bytes'] / 1e6:.2f} MB, "
        f"{len(result['layers'])} weights: {forms}",
        f"{result['record']}: record; {result['cpu_seconds']:.0f} CPU s, inputs: {result['inputs']}",
    ]
    for row in result["errors"]:
        psnr = "no difference" if row["psnr_db"] is None else f"PSNR {row['psnr_db']:.1f} dB"
        lines.append(
            f"{row['output']} computed in {row['precision']} against the {row['reference']}: {psnr}, relative error "
            f"{row['relative_rms']:.2e} rms, {row['max_relative']:.2e} at most, cosine {row['cosine']:.6f}"
        )
    return lines
