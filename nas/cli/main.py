"""The ``nas`` command: a lazy group, so that ``--help`` imports click alone."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from nas import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

# verb → (module:attribute, one-line help); a verb's module loads when it is called.
VERBS: dict[str, tuple[str, str]] = {
    "init": ("nas.cli.init:init", "Write a commented starter YAML."),
    "prune": ("nas.cli.prune:prune", "Prune an image network to limits; writes a plan that a space reads."),
    "run": ("nas.cli.stages:run", "Run every stage of a YAML; continues where it stopped."),
    "profile": ("nas.cli.profile:profile", "Measure blocks and whole networks, or import measurements."),
    "calibrate": ("nas.cli.stages:calibrate", "Fit and cross-validate the cost predictor."),
    "data": ("nas.cli.data:data", "Encode clips into shards for training, and look at shards."),
    "search": ("nas.cli.stages:search", "Search the space for the Pareto front."),
    "train": ("nas.cli.train:train", "Train the chosen network down to four steps."),
    "sample": ("nas.cli.sample:sample", "Write clips of a trained network as MP4 or GIF."),
    "vbench": ("nas.cli.sample:vbench", "Write a network's videos for VBench and let it score them."),
    "export": ("nas.cli.stages:export", "Write and check the Core ML package."),
    "compress": ("nas.cli.compress:compress", "Compress a Core ML package; mixed plans by measured error."),
    "closed-loop": ("nas.cli.stages:closed_loop", "Measure the front's own networks against their prediction."),
    "report": ("nas.cli.stages:report", "Write one self-contained HTML page."),
    "audit": ("nas.cli.audit:audit", "Say where each operation of a package can run on a phone."),
    "compare-published": (
        "nas.cli.published:compare_published",
        "Hold the phones' uncalibrated predictions against published latencies.",
    ),
    "verify": ("nas.cli.inspect:verify", "Check a run, or that a package computes what its network does."),
    "show": ("nas.cli.inspect:show", "Print a front, an architecture or the state of a run."),
    "list": (
        "nas.cli.inspect:list_kind",
        "List spaces, devices, engines, quality estimators, lowerings or import formats.",
    ),
    "config": ("nas.cli.config:config", "Check, print or describe a configuration."),
    "doctor": ("nas.cli.inspect:doctor", "Say what this machine can do and what is missing."),
}


class LazyGroup(click.Group):
    """A group that knows its verbs' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Import and return one verb."""
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]  # the rest by name
        """Run the command line; with ``--json`` its own faults are one document too."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or "--json" not in given:
            return super().main(args, standalone_mode=standalone_mode, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except click.ClickException as error:
            import json

            hint = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else None
            body = {"kind": "config", "exit": error.exit_code, "message": error.format_message(), "problems": []}
            click.echo(json.dumps({"error": {**body, "hint": hint}}, indent=2))
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Add the nearest verb to click's message about an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1) if args else []
            if near and "Did you mean" not in error.message:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """List the verbs from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nas")
def main() -> None:
    """Find, train and export video diffusion networks that fit a phone.

    RUN is a YAML file (starts or continues its run directory) or a run directory.

    Exit codes: 0 done, 1 bug or diverged training, 2 wrong command line or config, 3 input missing, damaged or stale,
    4 nothing meets the budget, 5 verification failed, 6 this machine lacks something, 7 measurement unstable,
    130 interrupted (state saved; the same command continues).
    """


if __name__ == "__main__":
    sys.exit(main())
