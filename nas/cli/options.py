"""Options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else there."),
    click.option("--quiet", "-q", is_flag=True, help="No progress."),
    click.option("--verbose", "-v", is_flag=True, help="Log what the libraries say too."),
)
_RUN = (
    click.argument("run", metavar="RUN"),
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=C", help="Override one key of the YAML; repeatable."
    ),
    click.option(
        "--force", is_flag=True, help="Do the stage again although it is done; stages that read it become pending."
    ),
    click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``, ``--quiet`` and ``--verbose``."""
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the RUN argument with ``--set``, ``--force`` and ``--dry-run``."""
    for option in reversed(_RUN):
        command = option(command)
    return command
