"""Audits of packages, bundles and runs: which packages, for which device, and ``audit.json`` beside them.

Also the predictor's memory of a network, set beside its program's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from latency_models import device as find_device
from latency_models.lowering import LOWERINGS
from latency_models.memory import memory_profile
from nas.core.errors import InputError
from nas.core.files import write_json
from nas.core.schema import with_schema
from nas.core.workload import Workload
from nas.export.mil.program import read_program
from nas.pipeline.audit_program import audit_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.scenario import ComputeUnits

AUDIT_NAME = "audit.json"
# The phone that the method was published on.
DEVICE = "iphone16_pro_max"
# How the predictor calls the forms that the exporter makes.
PREDICTED_AS = {"neural_engine": "long_axis_last", "gpu": "fused_sdpa"}


def find_packages(thing: Path) -> tuple[Path, ...]:
    """Return the packages of a package, a bundle folder or a run directory, sorted.

    Raises:
        InputError: It does not exist, or holds none.
    """
    if not thing.exists():
        raise InputError(f"{thing}: does not exist", hint="give an .mlpackage, a bundle folder or a run directory")
    if thing.suffix == ".mlpackage":
        return (thing,)
    export = thing / "export"
    found = sorted(thing.glob("*.mlpackage")) or sorted(export.glob("*/*.mlpackage"))
    if not found:
        raise InputError(
            f"{thing}: is no .mlpackage and holds none, neither itself nor below {export.name}/",
            hint="give an .mlpackage, a bundle folder or a run directory that has exported",
        )
    return tuple(found)


def audit_thing(thing: Path, *, device: str | None, compute_units: ComputeUnits | None) -> dict[str, Any]:
    """Audit a package, a bundle or everything a run has exported, on the run's own device unless another is named.

    Raises:
        ConfigError: The device is not known, or has no unit that the setting allows.
        InputError: There is no package, or one is damaged.
        UnavailableError: coremltools is missing, or a package is of a newer specification.
    """
    packages = find_packages(thing)
    own_device, own_units = _of_run(packages[0])
    return audit_packages(packages, device or own_device, compute_units or own_units, root=packages[0].parent)


def _of_run(package: Path) -> tuple[str, ComputeUnits]:
    """Return device and setting of the run that a package lies in, else the usual ones."""
    resolved = package.parents[2] / "resolved.yaml" if len(package.parents) > 2 else None
    if resolved is None or not resolved.is_file():
        return DEVICE, "cpu_and_ne"
    data = yaml.safe_load(resolved.read_text(encoding="utf-8"))
    name, units = data["device"]["name"], data["scenario"]["compute_units"]
    return _phone(name), units


def audit_packages(
    packages: Sequence[Path], device: str, compute_units: ComputeUnits = "cpu_and_ne", *, root: Path | None = None
) -> dict[str, Any]:
    """Audit several packages of one export; see ``audit_program``.

    Args:
        packages: What is audited.
        device: Where they are to run.
        compute_units: Core ML setting.
        root: Packages are named relative to it; by their last part without.

    Raises:
        ConfigError: The device is not known, or has no unit that the setting allows.
        InputError: A package is missing or damaged, or no ML Program.
        UnavailableError: coremltools is missing, or a package is of a newer specification.
    """
    spec = find_device(device)
    return with_schema(
        "audit",
        1,
        {
            "device": spec.name,
            "chip": spec.chip,
            "compute_units": compute_units,
            "packages": [
                {
                    "package": path.name if root is None else path.relative_to(root).as_posix(),
                    **audit_program(read_program(path), spec, compute_units),
                }
                for path in packages
            ],
        },
    )


def write_audit(
    folder: Path, device: str, compute_units: ComputeUnits = "cpu_and_ne", *, described: Described | None = None
) -> dict[str, Any]:
    """Audit the packages of a folder and leave ``audit.json`` beside them; returns what it says.

    Args:
        folder: Of the packages.
        device: Where they are to run; one that Core ML does not run on is replaced by the usual phone.
        compute_units: Core ML setting.
        described: The denoiser by its description, to set the predictor's memory beside the program's.
    """
    audit = audit_packages(find_packages(folder), _phone(device), compute_units, root=folder)
    if described is not None:
        audit["described"] = described_memory(described)
    write_json(folder / AUDIT_NAME, audit)
    return audit


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A network as the predictor knows it: its workload and the exporter's name of its form."""

    workload: Workload
    form: str


def described_memory(described: Described) -> dict[str, Any]:
    """Return the predictor's memory of a network in the form that is exported, as plain data."""
    lowering = LOWERINGS[PREDICTED_AS[described.form]]
    padded = memory_profile(described.workload, lowering)
    plain = memory_profile(described.workload, replace(lowering, row_bytes=1))
    return {
        "lowering": lowering.name,
        "activation_peak_bytes": plain.peak_activation_bytes,
        "padded_peak_bytes": padded.peak_activation_bytes,
        "weight_bytes": described.workload.weight_bytes,
    }


def _phone(name: str) -> str:
    return DEVICE if name.replace("-", "_").startswith(("host", "simulated")) else name
