"""A traced component as a Core ML ML Program in float16, on any system; nothing is loaded or run.

coremltools is imported inside functions: it costs seconds and only an export needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import UnavailableError, VerificationError
from nas.export.shims import repaired_coremltools

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram

    from nas.export.component import Component

MINIMUM_OS = "iOS18"  # fused scaled_dot_product_attention begins there
# torch.export leaves this beside the package's own files; nothing reads it.
DEBUG_FILE = "executorch_debug_handle_mapping.json"


def convert(program: ExportedProgram, component: Component) -> Any:
    """Convert a graph to an ML Program: float16 weights, inputs and outputs, target ``MINIMUM_OS``.

    Args:
        program: Graph of ``nas.export.trace.trace``.
        component: What it is the graph of.

    Returns:
        ``coremltools.models.MLModel``, not loaded.

    Raises:
        UnavailableError: coremltools is not installed.
        VerificationError: coremltools cannot convert the graph.
    """
    with repaired_coremltools() as coremltools:
        inputs = [
            coremltools.TensorType(name=port.name, shape=port.shape, dtype=getattr(np, port.dtype))
            for port in component.inputs
        ]
        try:
            model = coremltools.convert(
                program,
                convert_to="mlprogram",
                inputs=inputs,
                outputs=[coremltools.TensorType(name=port.name, dtype=np.float16) for port in component.outputs],
                minimum_deployment_target=coremltools.target[MINIMUM_OS],
                compute_precision=coremltools.precision.FLOAT16,
                skip_model_load=True,
            )
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise VerificationError(
                f"coremltools {coremltools.__version__} cannot convert the {component.name}: {error}",
                hint="the network uses an operation outside those that the tests of nas.export cover",
            ) from error
        for source in component.inputs:
            model.input_description[source.name] = source.text
        for target in component.outputs:
            model.output_description[target.name] = target.text
        return model


def save(model: Any, path: Path) -> None:
    """Write the package to ``path``, which must not exist.

    Raises:
        UnavailableError: The disk is full or cannot be written.
    """
    try:
        model.save(str(path))
        (path / DEBUG_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint="free some space there and in the temporary folder (TMPDIR)",
        ) from error
