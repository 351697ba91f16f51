"""How much of a layer's noise reaches the program's outputs: one whole pass for every weight, at one form.

The noise of a layer's own output says nothing of what follows: a residual branch whose share of the sum is small, or a
layer before a norm, counts less than one whose output is the result. Where one pass is cheap it is measured.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas.core.protocols import Progress, SilentProgress
from nas.export.compression.candidates import as_read
from nas.export.compression.forms import Form
from nas.export.compression.layers import noise_ratio
from nas.export.mil.executor import execute
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nas.export.compression.cache import Cache, Errors
    from nas.export.compression.weights import Weight
    from nas.export.mil.program import Program

# Neither so small that rounding counts nor so large that the network leaves its linear range.
PROBE = Form(kind="palettize", bits=4)


def measure_gains(
    program: Program,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    weights: Sequence[Weight],
    *,
    cache: Cache,
    errors: Errors,
    limit_s: float,
    progress: Progress | None = None,
) -> bool:
    """Measure what ``errors`` does not know: the noise of the outputs when one weight alone is in the form ``PROBE``.

    Args:
        program: In float16, not compressed.
        inputs: Tensor by input name.
        outputs: What the program gives for them.
        weights: The weights.
        cache: For look-up tables.
        errors: What is known; new errors are added weight by weight.
        limit_s: CPU seconds that may be spent; judged by the first pass, before the others are begun.
        progress: Told of every weight.

    Returns:
        Whether every weight's gain is known; False where the passes would take longer than ``limit_s``.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    report = progress or SilentProgress()
    missing = [weight for weight in weights if errors.known_output(weight.name, PROBE) is None]
    for done, weight in enumerate(missing):
        started = time.process_time()
        found = execute(_altered(program, weight, as_read(weight, PROBE, cache)), inputs)
        noise = sum(noise_ratio(expected, found[name]) for name, expected in outputs.items()) / len(outputs)
        errors.add_output(weight.name, PROBE, noise)
        report.update(done + 1, len(missing), weight.name)
        if (time.process_time() - started) * (len(missing) - done - 1) > limit_s:
            return False
    return True


def gain(weight: Weight, errors: Errors) -> float:
    """Return the noise of the outputs over that of the layer; 1 where either is not known or the layer has none."""
    output, layer = errors.known_output(weight.name, PROBE), errors.known(weight.name, PROBE)
    return output / layer if output is not None and layer else 1.0


def _altered(program: Program, weight: Weight, values: Tensor) -> Program:
    """Return the program with other values of one weight."""
    data = np.ascontiguousarray(values.numpy().astype(np.float16)).view(np.uint8).reshape(-1)
    constant = Constant(type=weight.constant.type, data=data, where=weight.constant.where, in_file=True)
    function = program.function()
    operations = tuple(
        replace(operation, value=constant) if operation.value is weight.constant else operation
        for operation in function.operations
    )
    return replace(program, functions={function.name: replace(function, operations=operations)})
