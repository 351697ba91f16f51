"""``nas init``: a commented starter YAML."""

from __future__ import annotations

from pathlib import Path

import click

from nas.cli.options import output_options
from nas.cli.output import Console


@click.command()
@click.argument("template", default="demo")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("run.yaml"), show_default=True, help="File to write."
)
@output_options
def init(template: str, output: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Write a commented starter YAML; TEMPLATE is demo (toy space, this machine) or snapgen_v (full size)."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.config.templates import read_template
        from nas.core.errors import ConfigError
        from nas.core.files import write_text_atomically

        if output.exists():
            raise ConfigError(f"{output}: exists already", hint="give another --output or remove it")
        write_text_atomically(output, read_template(template))
        console.result({"file": str(output)}, f"wrote {output}; next: nas run {output}")
