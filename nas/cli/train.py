"""The verb ``train``: every stage of the recipe or one alone, in one process or several, or what memory it needs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import click

from nas.cli.options import output_options, run_options
from nas.cli.output import Console
from nas.cli.stages import perform_stages
from nas.training.options import StageName

if TYPE_CHECKING:
    from nas.pipeline.context import TrainChoice


@click.command()
@run_options
@click.option(
    "--only",
    type=click.Choice(get_args(StageName)),
    help="One stage alone, from what the stages before it left on disk.",
)
@click.option(
    "--architecture",
    metavar="WHICH",
    help="Train this network: selected, largest, smallest, a digest of the search, or a .json file.",
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, help="Train in N processes of this host, one a GPU."
)
@click.option(
    "--plan", "show_plan", is_flag=True, help="Print the memory that each stage needs on a GPU, and train nothing."
)
@output_options
def train(
    run: str,
    overrides: tuple[str, ...],
    force: bool,
    dry_run: bool,
    only: str | None,
    architecture: str | None,
    processes: int,
    show_plan: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Train a network: teacher, distillation, trajectory, adversarial tuning; the stages are those of train.stages.

    A finished stage is kept, an unfinished one goes on from its last checkpoint. Of several hosts, start the same
    command on each with torchrun or accelerate launch.
    """
    from nas.training.processes import num_processes

    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.core.errors import ConfigError
        from nas.pipeline.context import TrainChoice

        choice = TrainChoice(only=only, architecture=architecture)
        if force and not choice.whole:
            raise ConfigError(
                "--force does all stages again and cannot be joined with --only or --architecture",
                hint="remove the stage's folder, train/<digest>/<stage>, and run it again",
            )
        if show_plan:
            _print_plan(run, overrides, choice, processes=max(processes, num_processes()), console=console)
        elif num_processes() > 1 and not dry_run:
            _together(run, overrides, choice, force=force, console=console)
        elif processes > 1 and not dry_run:
            from nas.pipeline.together import launch

            raise SystemExit(launch(["train", *sys.argv[sys.argv.index("train") + 1 :]], processes=processes))
        elif dry_run or choice.whole:
            perform_stages(run, ("train",), console=console, overrides=overrides, force=force, dry_run=dry_run)
        else:
            _part(run, overrides, choice, console=console)


def _part(run: str, overrides: tuple[str, ...], choice: TrainChoice, *, console: Console) -> None:
    from nas.pipeline.context import open_run
    from nas.pipeline.stages import perform_part

    context = replace(open_run(run, overrides=overrides), train_choice=choice)
    with context.directory.lock(), console.errors(context.directory.path / "log.txt"):
        text = perform_part(context, "train", progress=console.progress, say=console.say)
    directory = str(context.directory.path)
    console.result({"directory": directory, "only": choice.only, "result": text}, f"{directory}\n{text}")


def _together(run: str, overrides: tuple[str, ...], choice: TrainChoice, *, force: bool, console: Console) -> None:
    """Do this process's part of a training in several."""
    from nas.pipeline.together import follow, let_go
    from nas.training.processes import is_main

    if not is_main():
        follow(choice)
        return
    if choice.whole:
        perform_stages(run, ("train",), console=console, overrides=overrides, force=force, dry_run=False)
    else:
        _part(run, overrides, choice, console=console)
    let_go()


def _print_plan(run: str, overrides: tuple[str, ...], choice: TrainChoice, *, processes: int, console: Console) -> None:
    from nas.pipeline.memory_plan import plan_of_run

    plan = plan_of_run(run, overrides, choice, processes=processes)
    console.result(plan.data(), plan.text())
    plan.require_fits()
