"""``nas config``: check a YAML, print it with every default, or emit its JSON Schema for an editor."""

from __future__ import annotations

from pathlib import Path

import click

from nas.cli.options import output_options
from nas.cli.output import Console


@click.group()
def config() -> None:
    """Check, print or describe a configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one key; repeatable.")
@output_options
def check(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool) -> None:
    """Validate FILE; every fault is printed with its line, exit 2."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.config.run import load_run_document
        from nas.pipeline.checks import check_run
        from nas.pipeline.scenario_checks import scenario_warnings

        run, document = load_run_document(file, overrides)
        check_run(run, document)
        warnings = scenario_warnings(run)
        for line in warnings:
            console.say(f"warning: {line}")
        noted = {"warnings": warnings} if warnings else {}
        console.result({"file": str(file), "valid": True, **noted}, f"{file}: valid")


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one key; repeatable.")
@output_options
def show(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool) -> None:
    """Print FILE with every default filled in."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        import yaml

        from nas.config.run import load_run

        data = load_run(file, overrides).model_dump(exclude_none=True)
        console.result(data, yaml.safe_dump(data, sort_keys=False).rstrip())


@config.command()
def schema() -> None:
    """Print the JSON Schema; save it beside the YAML and name it in ``# yaml-language-server: $schema=…``."""
    import json

    from nas.config.run import RunConfig

    click.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
