"""Verbs that only look: ``verify``, ``show``, ``list`` and ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nas.cli.options import output_options
from nas.cli.output import Console

if TYPE_CHECKING:
    from nas.pipeline.context import Context


def _open_begun(run: str) -> Context:
    """Open a run that has begun, by its folder or its YAML; looking at a run never starts one."""
    from nas.core.errors import InputError
    from nas.pipeline.context import find_run, open_run

    directory = find_run(run)[1]
    if directory is None:
        raise InputError(f"{run}: there is no run of these settings yet", hint=f"start it: nas run {run}")
    return open_run(str(directory.path))


@click.command()
@click.argument("thing", metavar="THING")
@click.option("--network", metavar="FOLDER", help="Saved network or run whose weights a denoiser must compute with.")
@click.option("--bisect", is_flag=True, help="Name the first operation where package and --network part.")
@click.option("--quick", is_flag=True, help="Leave out float16 and rounded weights: half the passes.")
@click.option("--core-ml", is_flag=True, help="Fail where Core ML itself cannot run; it runs by itself on a Mac.")
@output_options
def verify(
    thing: str, network: str | None, bisect: bool, quick: bool, core_ml: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Check a run, a package or a bundle of packages.

    A run: file digests, stale stages, export checks, coverage of the measured costs. A .mlpackage or a bundle folder:
    its outputs, computed on this machine in float32 and float16 (on a Mac also by Core ML on every compute unit),
    against those of --network, or against what the export recorded beside it.

    Exit 3 when a file is missing, damaged or stale, 5 when a check does not hold or nothing could be compared.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.core.errors import VerificationError
        from nas.pipeline.verify_package import VerifyOptions, is_exported, verify_exported

        options = VerifyOptions(network=network, bisect=bisect, core_ml=core_ml, quick=quick)
        if is_exported(thing):
            verdicts = verify_exported(thing, options, progress=console.progress("verify"))
            data = {"networks": [item.to_dict() for item in verdicts]}
            text = "\n".join(item.text() for item in verdicts)
            if bad := [f"{item.name}: {item.verdict}" for item in verdicts if item.verdict != "verified"]:
                hint = "name its network with --network" if "not verified" in bad[0] else None
                console.fail(VerificationError(f"{thing}: {', '.join(bad)}", hint=hint), data, text)
            console.result(data, text)
            return
        if options != VerifyOptions():
            from nas.core.errors import ConfigError

            raise ConfigError(
                "--network, --bisect, --quick and --core-ml are for packages and bundles", hint=f"{thing}: is neither"
            )
        from nas.pipeline.verify import verify_run

        checks = verify_run(_open_begun(thing), progress=console.progress("verify"))
        lines = [f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.found}" for check in checks]
        rows = [{"name": c.name, "expected": c.expected, "found": c.found, "passed": c.passed} for c in checks]
        failed = [check.name for check in checks if not check.passed]
        if failed:
            error = VerificationError(f"{thing}: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
            console.fail(error, {"checks": rows}, "\n".join(lines))
        console.result({"checks": rows}, "\n".join(lines))


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("thing", default="front", type=click.Choice(["front", "architecture", "status", "explain"]))
@click.option("--architecture", "digest", default=None, help="Digest of the network; the chosen one otherwise.")
@output_options
def show(run: str, thing: str, digest: str | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Print the front, one architecture with its cost per block, the stages' states, or what drove RUN's search."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.show import describe

        data, text = describe(_open_begun(run), thing, digest)
        console.result(data, text)


@click.command(name="list")
@click.argument("kind", type=click.Choice(["spaces", "devices", "engines", "qualities", "lowerings", "formats"]))
@output_options
def list_kind(kind: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """List what can be named: KIND is spaces, devices, engines, qualities, lowerings, or formats of imports."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.show import listing

        rows = listing(kind)
        width = max(len(row["name"]) for row in rows)
        console.result({kind: rows}, "\n".join(f"{row['name']:<{width}}  {row['text']}" for row in rows))


@click.command()
@output_options
def doctor(as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what this machine can do, and what is missing for the rest."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    with console.errors():
        from nas.pipeline.show import examine_machine

        rows = examine_machine()
        lines = [f"{'yes' if row['available'] else 'no ':<4}{row['name']}: {row['text']}" for row in rows]
        console.result({"machine": rows}, "\n".join(lines))
