"""The verb ``profile``: measure here, import measurements, write what or a kit to measure, or plan what comes next."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import output_options, run_options
from nas.cli.output import Console
from nas.cli.stages import perform_stages

if TYPE_CHECKING:
    from latency_models.importers import ImportOptions
    from nas.pipeline.context import Context
    from nas.pipeline.importing import ImportReport

_UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")


@click.command()
@run_options
@click.option("--import", "imports", multiple=True, metavar="FILE", help="Import measurements; repeatable.")
@click.option("--format", "format_name", default="auto", help="Format of the files; `nas list formats` has all.")
@click.option("--unit", default=None, help="Time unit of figures that state none: ns, us, ms or s.")
@click.option("--device", default=None, help="Device of records that state none.")
@click.option("--subject", default=None, help="Block, architecture or model that a compute plan is of.")
@click.option(
    "--compute-units", default=None, type=click.Choice(_UNITS), help="Core ML setting of records without one."
)
@click.option(
    "--jobs",
    default=None,
    metavar="FILE",
    help="Write what to measure on the phone, and measure nothing; with --plan only what is planned.",
)
@click.option(
    "--kit",
    default=None,
    metavar="DIR",
    help="Write packages to measure, and a runner for phone and Mac; with --plan only what is planned.",
)
@click.option(
    "--units", multiple=True, type=click.Choice(_UNITS), help="With --kit: a Core ML setting to measure; repeatable."
)
@click.option("--plan", "plan_count", type=int, metavar="N", help="Print the N measurements to take next, best first.")
@click.option("--measure", is_flag=True, help="With --plan: take these measurements and add them to the profile.")
@click.option("--per-second", is_flag=True, help="With --plan: best for a second of measuring, not for each one.")
@output_options
def profile(
    run: str,
    overrides: tuple[str, ...],
    force: bool,
    dry_run: bool,
    imports: tuple[str, ...],
    format_name: str,
    unit: str | None,
    device: str | None,
    subject: str | None,
    compute_units: str | None,
    jobs: str | None,
    kit: str | None,
    units: tuple[str, ...],
    plan_count: int | None,
    measure: bool,
    per_second: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Measure every distinct block of the space and some whole networks on the device of RUN.

    A phone is measured elsewhere: --kit writes the packages with a runner for it, --import takes its results; --jobs
    writes the bare list of what to measure. A record is imported once,
    and only for the device, scenario and search space of RUN; everything else is named with file and line.

    --plan chooses the blocks and networks that shrink the uncertainty of the front's latencies most; with --measure the
    host takes them, with --jobs or --kit they are written for the phone. A kit that was stopped goes on where it was.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if units and kit is None:
        raise click.UsageError("--units needs --kit DIR")
    if kit is not None:
        if force or imports or jobs is not None or measure:
            raise click.UsageError("--kit goes with none of --force, --import, --jobs and --measure")
        _kit(run, kit, units, plan_count, overrides, console, per_second=per_second, dry_run=dry_run)
        return
    if plan_count is not None:
        if force or dry_run or imports:
            raise click.UsageError("--plan goes with neither --force nor --dry-run nor --import")
        if measure and jobs is not None:
            raise click.UsageError("--measure takes the planned measurements here, --jobs writes them for a phone: one")
        _plan(run, plan_count, overrides, console, measure=measure, per_second=per_second, jobs=jobs)
        return
    if measure or per_second:
        raise click.UsageError("--measure and --per-second need --plan N")
    if not imports and (format_name != "auto" or unit or device or subject or compute_units):
        raise click.UsageError("--format, --unit, --device, --subject and --compute-units need --import FILE")
    if not imports and jobs is None:
        perform_stages(run, ("profile",), console=console, overrides=overrides, force=force, dry_run=dry_run)
        return
    with console.errors():
        data: dict[str, Any] = {}
        lines: list[str] = []
        if jobs is not None:
            count = _write_jobs(run, jobs, overrides, dry_run=dry_run)
            data["jobs"] = {"file": jobs, "written": not dry_run, "count": count}
            lines.append(f"{jobs}: {count} jobs" + (", not written" if dry_run else ""))
        if imports:
            from latency_models.importers import ImportOptions

            options = ImportOptions(device=device, unit=unit, subject=subject, compute_units=compute_units)  # type: ignore[arg-type]  # click's choice
            reports = _import(run, imports, options, overrides, format_name=format_name, dry_run=dry_run)
            data["imports"] = [report.to_dict() for report in reports]
            lines += [line for report in reports for line in report.lines()]
        console.result(data, "\n".join(lines))


def _import(
    run: str,
    files: tuple[str, ...],
    options: ImportOptions,
    overrides: tuple[str, ...],
    *,
    format_name: str,
    dry_run: bool,
) -> list[ImportReport]:
    from nas.pipeline.context import find_run, open_run
    from nas.pipeline.importing import import_file, target_of
    from nas.pipeline.stages import add_to_profile, chosen_stages

    if dry_run:
        config, directory = find_run(run, overrides=overrides)
        target = target_of(config, directory)
        return [import_file(Path(file), target, options, format_name=format_name, write=False) for file in files]
    context = open_run(run, overrides=overrides)
    chosen_stages(context.config, ("profile",))
    target = target_of(context.config, context.directory)
    reports: list[ImportReport] = []

    def add(file: str) -> bool:
        reports.append(import_file(Path(file), target, options, format_name=format_name))
        return reports[-1].written

    with context.directory.lock():
        for file in files:  # one at a time, so that a faulty file leaves those before it imported
            add_to_profile(context, partial(add, file))
    return reports


def _write_jobs(run: str, file: str, overrides: tuple[str, ...], *, dry_run: bool) -> int:
    from nas.pipeline.context import find_run
    from nas.pipeline.importing import target_of
    from nas.pipeline.job_list import all_jobs, write_jobs

    config, directory = find_run(run, overrides=overrides)
    target = target_of(config, directory)
    jobs = all_jobs(config, target.space, target.scenario)
    if not dry_run:
        write_jobs(Path(file), config, target.space, target.scenario, jobs)
    return len(jobs)


def _plan(
    run: str,
    count: int,
    overrides: tuple[str, ...],
    console: Console,
    *,
    measure: bool,
    per_second: bool,
    jobs: str | None,
) -> None:
    """Print what to measure next, and measure it or write it as a job list if asked to."""
    with console.errors():
        from nas.pipeline.context import open_run
        from nas.pipeline.job_list import write_jobs
        from nas.pipeline.planning import plan_measurements, planned_jobs
        from nas.pipeline.stages import chosen_stages, extend_profile

        context = open_run(run, overrides=overrides)
        chosen_stages(context.config, ("profile",))
        plan = plan_measurements(context, count, per_cost=per_second)
        if jobs is not None:
            planned = planned_jobs(context, plan)
            write_jobs(Path(jobs), context.config, context.space, context.scenario, planned)
            console.say(f"{jobs}: {len(planned)} jobs for {context.config.device.name}")
        if measure:
            with context.directory.lock(), console.errors(context.directory.path / "log.txt"):
                console.say(f"profile: {extend_profile(context, plan, progress=console.progress('profile'))}")
        console.result(plan.to_dict(), plan.text())


def _kit(
    run: str,
    folder: str,
    units: tuple[str, ...],
    count: int | None,
    overrides: tuple[str, ...],
    console: Console,
    *,
    per_second: bool,
    dry_run: bool,
) -> None:
    """Write a kit of every job or of the planned ones, or say how big and how long it would be."""
    if per_second and count is None:
        raise click.UsageError("--measure and --per-second need --plan N")
    with console.errors():
        from nas.pipeline.context import context_of, open_run
        from nas.pipeline.kit import plan_kit, write_kit

        context = (context_of if dry_run else open_run)(run, overrides=overrides)
        plan = plan_kit(context, _kit_entries(context, count, per_second=per_second), units)  # type: ignore[arg-type]  # click's choice
        data: dict[str, Any] = {"folder": folder, "written": not dry_run, **plan.to_dict()}
        if dry_run:
            console.result({"kit": data}, f"{folder}: {plan.text()}; not written")
            return
        console.say(plan.text())
        with context.directory.lock():
            manifest = write_kit(context, Path(folder), plan, console.progress("kit"))
        data |= {"kit": manifest.kit, "jobs": len(manifest.jobs)}
        console.result({"kit": data}, f"{folder}: kit {manifest.kit}, {len(manifest.jobs)} jobs; README.md says how")


def _kit_entries(context: Context, count: int | None, *, per_second: bool) -> list[dict[str, Any]]:
    from nas.pipeline.job_list import all_jobs
    from nas.pipeline.stages import chosen_stages

    chosen_stages(context.config, ("profile",))
    if count is None:
        return all_jobs(context.config, context.space, context.scenario)
    from nas.pipeline.planning import plan_measurements, planned_jobs

    return planned_jobs(context, plan_measurements(context, count, per_cost=per_second))
