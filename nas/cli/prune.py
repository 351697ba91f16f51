"""The verb ``prune``: an image network and limits in, a plan file and the distilled pruned network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.cli.options import output_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.argument("config", metavar="CONFIG")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one key of the YAML; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print what every unit takes and the limits, and write nothing.")
@output_options
def prune(config: str, overrides: tuple[str, ...], dry_run: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Prune the image network of the YAML CONFIG to its limits, and write plan.yaml for `space: {backbone: PATH}`.

    Blocks are scored by how much the distillation loss rises without them; the choice is greedy, exact, or the better
    of both. What was done before an interruption is kept.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.config.prune import load_prune
        from nas.pipeline.prune import check_prune, perform, price_list

        settings, _ = load_prune(Path(config), overrides)
        check_prune(settings)
        if dry_run:
            prices = price_list(settings)
            console.result(prices, "\n".join(_price_lines(prices)))
            return
        report = perform(settings, progress=console.progress, say=console.say)
        console.result(report, "\n".join(_report_lines(report)))


def _price_lines(prices: Mapping[str, Any]) -> list[str]:
    head = (
        f"{prices['source']}: {prices['latency_ms']:.2f} ms a call ({prices['predictor']}), "
        f"{prices['parameters'] / 1e6:.1f} M parameters"
    )
    limits = ", ".join(f"{name} {value:.6g}" for name, value in prices["limits"].items())
    rows = [
        f"{unit['name']:<28} {unit['latency_ms']:9.3f} ms {unit['parameters'] / 1e6:9.3f} M" for unit in prices["units"]
    ]
    return [head, f"limits: {limits}", *rows]


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    ratio = report["source_parameters"] / report["parameters"]
    best = report["choices"][0]
    lines = [
        f"{report['plan']}: {report['parameters'] / 1e6:.2f} M parameters of {report['source_parameters'] / 1e6:.2f} M "
        f"({ratio:.2f}x fewer)",
        f"{report['latency_ms']:.2f} ms a call of {report['source_latency_ms']:.2f} ms ({report['latency_origin']})",
        f"{best['method']} choice, {len(best['removed'])} units removed, loss rise {best['loss_rise']:.4f}, scores "
        f"{report['scores']}",
    ]
    if "distillation_loss" in report:
        lines.append(f"distilled: last loss {report['distillation_loss']:.4f}, network in {report['network']}")
    return lines
