"""A second opinion on the network's graph: Apple's Core AI converts it in float32 and computes it on this machine.

Core AI (``coreai-core``, ``coreai-torch``; ``.aimodel``, iOS 27) is another exporter with an interpreter of its own, so
it checks the graph that PyTorch hands over, not the Core ML package. Both are imported inside functions: they are an
optional extra.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from nas.core.errors import UnavailableError, VerificationError
from nas.export.bundle import SecondOpinion, describe_file
from nas.export.component import empty_inputs, example_inputs
from nas.export.mil.compare import compare_tensors
from nas.export.parity import torch_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from nas.export.component import Component

SUFFIX = ".aimodel"
ENTRY = "main"
HINT = "pip install 'mobile-video-nas[coreai]'"
# Seen on the toy networks: below 2e-6 of the largest value; at 0.64 billion parameters 1.5e-5.
MAX_RELATIVE = 1e-3


def require_coreai() -> None:
    """Let an export go on that can use Core AI.

    Raises:
        UnavailableError: It is not installed, or does not load here.
    """
    try:
        with warnings.catch_warnings():
            # It takes the "+cpu" of a build's version for a newer one; what it computes is compared anyway.
            warnings.filterwarnings("ignore", message="coreai-torch has only been validated")
            import coreai.authoring  # noqa: F401
            import coreai_torch  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"export.coreai needs coreai-core and coreai-torch, which cannot be imported: {error}",
            hint=f"{HINT}, or set export.coreai to false",
        ) from error


def export_coreai(component: Component, path: Path) -> SecondOpinion:
    """Write a network as an ``.aimodel`` in float32, compute it with Core AI's interpreter, and compare with PyTorch.

    Args:
        component: The network.
        path: Where to; ends in ``.aimodel``.

    Returns:
        The worst figures of all outputs.

    Raises:
        UnavailableError: Core AI is not installed.
        VerificationError: It refuses the network, or computes something else than PyTorch.
    """
    require_coreai()
    inputs = example_inputs(component)
    start = time.monotonic()
    try:
        asset = _save(component, path)
        converted = time.monotonic()
        found = asyncio.run(_compute(asset, inputs))
        computed = time.monotonic()
    except (NotImplementedError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise VerificationError(
            f"Core AI cannot convert or compute the {component.name}: {_first_line(error)}",
            hint="set export.coreai to false; the Core ML package does not depend on it",
        ) from error
    expected = torch_outputs(component, inputs)
    errors = [compare_tensors(name, tensor, found[name]) for name, tensor in expected.items()]
    psnr = min(error.psnr_db for error in errors)
    opinion = SecondOpinion(
        by=f"Core AI {version('coreai-core')}, float32, its own interpreter on this machine",
        package=describe_file(path.parent, path.name),
        max_absolute=max(error.max_absolute for error in errors),
        max_relative=max(error.max_relative for error in errors),
        psnr_db=None if psnr == math.inf else psnr,
        convert_seconds=converted - start,
        compute_seconds=computed - converted,
    )
    if not opinion.max_relative <= MAX_RELATIVE:
        raise VerificationError(
            f"Core AI computes the {component.name} otherwise than PyTorch: largest relative difference "
            f"{opinion.max_relative:.1e}, allowed {MAX_RELATIVE:g}",
            hint="one of the two has the graph wrong; please report it with the architecture",
        )
    return opinion


def _save(component: Component, path: Path) -> Any:
    from coreai_torch import TorchConverter, get_decomp_table

    with torch.no_grad(), warnings.catch_warnings():
        # torch 2.13's own use of its tree nodes; gone when torch stops calling it.
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
        program = torch.export.export(component.module, empty_inputs(component))
        program = program.run_decompositions(get_decomp_table())
    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
    converter.add_exported_program(
        program,
        input_names=[port.name for port in component.inputs],
        output_names=[port.name for port in component.outputs],
        entrypoint_name=ENTRY,
    )
    with redirect_stdout(io.StringIO()):  # its progress goes there, where ours has one JSON document
        return converter.to_coreai().save_asset(path)


async def _compute(asset: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from coreai.runtime import NDArray

    async with asset.executable() as model:
        function = model.load_function(ENTRY)
        results = await function(inputs={name: NDArray(tensor.numpy()) for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array.numpy().copy()) for name, array in results.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
