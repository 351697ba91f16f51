"""The verb ``audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nas.cli.options import output_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from nas.core.scenario import ComputeUnits


@click.command()
@click.argument("thing", metavar="PACKAGE|BUNDLE|RUN")
@click.option("--device", default=None, help="Name of a device (nas list devices); a run's own, else iphone16_pro_max.")
@click.option(
    "--compute-units",
    default=None,
    type=click.Choice(["all", "cpu_and_ne", "cpu_and_gpu", "cpu_only"]),
    help="Core ML setting; a run's own, else cpu_and_ne.",
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=0), help="Operations in the table.")
@output_options
def audit(
    thing: str,
    device: str | None,
    compute_units: ComputeUnits | None,
    top: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say where each operation of a package can run on a phone, and what it wastes; nothing is run.

    Units that refuse an operation and why, segments and crossings, layout changes, padding, memory, known risks, and
    times by the device's uncalibrated prior. Exit 3 when a file is missing or damaged or is no ML Program, 6 when it is
    of a newer specification.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from pathlib import Path

        from nas.pipeline.audit import audit_thing
        from nas.report.audit import audit_text

        found = audit_thing(Path(thing), device=device, compute_units=compute_units)
        console.result(found, audit_text(found, top=top))
