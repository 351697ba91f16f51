"""Size of an exported package on disk: stored weights, what their form adds, the program's text, a fixed part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.devices import WeightFormat

if TYPE_CHECKING:
    from nas.core.workload import Operation, Workload

# Read off packages that coremltools 9.0 wrote of three networks of ``tiny`` (2026-11): manifest and program without
# operations; text of one operation of a workload (two to three of the program); record and padding of one tensor.
_FIXED_BYTES = 18_100.0
_OPERATION_BYTES = 865.0
_TENSOR_BYTES = 98.0
# What the operation that expands a compressed tensor adds to the program, its scales or table aside; same packages.
_EXPANSION_BYTES = 300.0
# coremltools leaves tensors of at most this many weights as they are (``weight_threshold``), and scales blocks of 32.
_THRESHOLD = 2048
_BLOCK = 32
_PLAIN = WeightFormat()


def package_mb(workload: Workload, weights: WeightFormat = _PLAIN) -> float:
    """Return the size of the package of ``workload`` in MB; it adds up over operations.

    An export stores float16 whatever the scenario's precision. Real packages of three networks of ``tiny`` are met
    within 1 % (plain) and 2.1 % (palettised, linear, sparse), one of 605 M parameters within 0.02 %. Of blockwise
    ones it is a lower bound: coremltools leaves tensors as they are whose axes blocks do not divide.

    Args:
        workload: One call of the network.
        weights: How the package stores them; ``bits`` of the sparse form are those of the values kept, over all.
    """
    return (_FIXED_BYTES + sum(_stored_bytes(operation, weights) for operation in workload.operations)) / 1e6


def _stored_bytes(operation: Operation, weights: WeightFormat) -> float:
    if not operation.parameters:
        return _OPERATION_BYTES
    plain = 2.0 * operation.parameters + _OPERATION_BYTES + _TENSOR_BYTES
    if weights.form == "plain" or operation.parameters <= _THRESHOLD:
        return plain
    stored = operation.parameters * weights.bits / 8.0
    return stored + _form_bytes(operation, weights) + _EXPANSION_BYTES + _OPERATION_BYTES + _TENSOR_BYTES


def _form_bytes(operation: Operation, weights: WeightFormat) -> float:
    """Return what a form stores besides the weights: a table of 16-bit values, scales, or a bit a weight."""
    if weights.form == "palettised":
        return float(2.0 * 2.0**weights.bits)
    if weights.form == "blockwise":
        return 2.0 * operation.parameters / _BLOCK
    if weights.form == "sparse":
        return operation.parameters / 8.0
    return 2.0 * dict(operation.options).get("out_channels", 0)
