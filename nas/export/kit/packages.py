"""Blocks and whole networks as packages to be timed; their weights are fresh, since time does not depend on them."""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nas.core.files import sha256_path
from nas.export.checks import check_package, require_passed
from nas.export.component import Component, InputPort, OutputPort, denoiser_component
from nas.export.coreml import convert, save
from nas.export.kit.blocks import LoweredBlock, lowered_shapes
from nas.export.package import read_package
from nas.export.trace import trace
from nas.models.build import build_block, build_denoiser

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from nas.core.workload import BlockSpec
    from nas.export.lowering import Lowering
    from search_spaces.temporal import TemporalSpace

WEIGHT_SEED = 0
_OUTPUT = "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPackage:
    """What was written: ``inputs`` are (name, shape, number format) in call order."""

    sha256: str
    package_bytes: int
    specification: int
    parameters: int
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]


def block_component(spec: BlockSpec, *, lowering: Lowering) -> Component:
    """Return one block, rewritten for a compute unit, as what a package is made from.

    Raises:
        ValueError: The block's kind is unknown.
        ConfigError: There is no such lowering.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHT_SEED)
        module, _ = build_block(spec)
    lowered = LoweredBlock(spec, module, lowering=lowering)
    return Component(
        name="block",
        module=lowered,
        inputs=tuple(
            InputPort(name=name, shape=shape, text=f"Input {name!r} of the block.")
            for name, shape in lowered_shapes(spec, lowering=lowering).items()
        ),
        outputs=(OutputPort(name=_OUTPUT, text="Output of the block."),),
        description=f"Block {spec.signature}, to be timed.",
        operations=lowered.fused_operations(),
    )


def network_component(
    space: TemporalSpace, architecture: Architecture, scenario: Scenario, *, lowering: Lowering
) -> Component:
    """Return one call of a whole network, rewritten for a compute unit, as what a package is made from.

    Raises:
        ArchitectureError: The architecture is not of the space.
        ConfigError: The scenario does not fit the backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHT_SEED)
        denoiser = build_denoiser(space, architecture).eval()
    return denoiser_component(denoiser, scenario, lowering=lowering)


def write_package(component: Component, path: Path, work: Path) -> WrittenPackage:
    """Convert a component, check what was saved and put it at ``path`` as a whole.

    Args:
        component: What to convert.
        path: Where to; a package that is there is replaced.
        work: A folder on the same disk for what is not finished; it is emptied first.

    Raises:
        UnavailableError: coremltools is missing, or the disk is full.
        VerificationError: coremltools refuses the component, or a check failed.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    saved = work / path.name
    program = trace(component)
    model = convert(program, component)
    del program
    gc.collect()
    model.short_description = component.description
    save(model, saved)
    package = read_package(saved)
    require_passed(check_package(package, component), path)
    written = WrittenPackage(
        sha256=sha256_path(saved),
        package_bytes=sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()),
        specification=package.specification,
        parameters=sum(item.numel() for item in component.module.parameters()),
        inputs=tuple((port.name, port.shape, port.dtype) for port in package.inputs),
    )
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    saved.rename(path)
    shutil.rmtree(work)
    return written
