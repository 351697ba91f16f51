"""The verb ``compare-published``."""

from __future__ import annotations

import click

from nas.cli.options import output_options
from nas.cli.output import Console


@click.command()
@click.option("--data", "folder", metavar="DIR", default=None, help="Folder with a table of published latencies.")
@output_options
def compare_published(folder: str | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Hold the phones' uncalibrated predictions against latencies that papers and projects published.

    Without --data the figures that come with the toolkit are taken, each with its source. Exit 3 when DIR holds no
    table or a damaged one.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from pathlib import Path

        from nas.pipeline.published import compare_published as compare
        from nas.pipeline.published import markdown

        result = compare(None if folder is None else Path(folder))
        console.result(result, markdown(result).rstrip("\n"))
