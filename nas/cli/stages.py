"""The verbs that do the work: ``run`` for all stages of a YAML, and one verb a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nas.cli.options import output_options, run_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from collections.abc import Callable


def perform_stages(
    run: str,
    stages: tuple[str, ...] | None,
    *,
    console: Console,
    overrides: tuple[str, ...],
    force: bool,
    dry_run: bool,
) -> None:
    """Do ``stages`` of a run (None: every stage its YAML has) and print what they gave."""
    with console.errors():
        from nas.pipeline.context import find_run, open_run
        from nas.pipeline.stages import chosen_stages, perform, plan, summary

        if dry_run:
            steps = plan(*find_run(run, overrides=overrides), stages, force=force)
            console.result({"plan": steps}, "\n".join(f"{step['stage']}: {step['text']}" for step in steps))
            return
        context = open_run(run, overrides=overrides)
        chosen_stages(context.config, stages)
        with context.directory.lock(), console.errors(context.directory.path / "log.txt"):
            perform(context, stages, force=force, progress=console.progress, say=console.say)
        data = summary(context)
        console.result(data, "\n".join(data["lines"]))


def _stage_command(name: str, text: str, stages: tuple[str, ...] | None) -> click.Command:
    @click.command(name=name, help=text)
    @run_options
    @output_options
    def command(
        run: str, overrides: tuple[str, ...], force: bool, dry_run: bool, as_json: bool, quiet: bool, verbose: bool
    ) -> None:
        console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
        perform_stages(run, stages, console=console, overrides=overrides, force=force, dry_run=dry_run)

    return command


_make: Callable[..., click.Command] = _stage_command

run = _make(
    "run",
    "Run every stage that the YAML RUN has: profile, calibrate, search, train, export, closed-loop, report. "
    "A finished stage is kept; a run that was killed goes on where it stopped.",
    None,
)
calibrate = _make(
    "calibrate", "Fit the cost predictor of RUN to its profile and cross-validate it by whole networks.", ("calibrate",)
)
search = _make("search", "Search the space of RUN under its budget; the journal resumes after a kill.", ("search",))
export = _make(
    "export", "Export the chosen network to Core ML and check the package against the torch model.", ("export",)
)
closed_loop = _make(
    "closed-loop", "Measure the front's own networks on the host and compare with their prediction.", ("closed_loop",)
)
report = _make("report", "Write report/index.html of RUN from the files in its directory.", ("report",))
