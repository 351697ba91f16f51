"""``*.mlcomputeplan.json`` of argmaxtools and whisperkittools: dispatch, supported units and cost in per cent.

Keys are ``<number>_<operation>_<inputs>``; the tool scales the costs so that they add up to 100.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.compute_plans import plan_record
from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_document
from latency_models.importers.naming import compute_unit
from nas.core.profile import PlannedOperation

if TYPE_CHECKING:
    from pathlib import Path

_WHOLE = 100.0
# MIL operations with more than one word in their name; inputs follow behind the same underscore.
_LONG_NAMES = frozenset({
    "avg_pool", "band_part", "batch_norm", "batch_to_space", "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale", "constexpr_cast", "constexpr_lut_to_dense", "constexpr_lut_to_sparse",
    "constexpr_sparse_to_dense", "conv_transpose", "coreml_update_state", "depth_to_space", "expand_dims",
    "fill_like", "floor_div", "gather_along_axis", "gather_nd", "greater_equal", "instance_norm", "l2_norm",
    "layer_norm", "leaky_relu", "less_equal", "logical_and", "logical_not", "logical_or", "max_pool", "non_zero",
    "not_equal", "one_hot", "pixel_shuffle", "pixel_unshuffle", "random_normal", "random_uniform", "range_1d",
    "read_state", "real_div", "reduce_argmax", "reduce_l2_norm", "reduce_max", "reduce_mean", "reduce_min",
    "reduce_sum", "reduce_sum_square", "resize_bilinear", "resize_nearest_neighbor", "reverse_sequence",
    "scaled_dot_product_attention", "scaled_tanh", "scatter_nd", "sigmoid_hard", "slice_by_index", "slice_by_size",
    "slice_update", "sliding_windows", "softplus_parametric", "space_to_batch", "space_to_depth", "thresholded_relu",
    "upsample_bilinear", "upsample_nearest_neighbor",
})  # fmt: skip


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read one plan; an operation that cannot be read is named and left out.

    Raises:
        InputError: The file is missing or not JSON.
    """
    data, rows = read_document(path), Rows(str(path))
    plan: list[PlannedOperation] = []
    with rows.row(None):
        if not isinstance(data, dict):
            raise ValueError("is no object of operations")
        for key, entry in data.items():
            with rows.row(None):
                plan.append(_operation(str(key), entry))
        total = _WHOLE * sum(operation.cost_share or 0.0 for operation in plan)
        if 0.0 < total <= 1.5:  # a plan of shares would add up to 1
            raise ValueError(f"costs add up to {total:.3g}; this format states per cent, which add up to 100")
        rows.keep(plan_record(path, plan, options, tool="argmaxtools compute plan"), None)
    return rows.result()


def _operation(key: str, entry: Any) -> PlannedOperation:
    if not isinstance(entry, dict) or "dispatch" not in entry:
        raise ValueError(f"operation {key!r} has no 'dispatch'")
    cost = entry.get("cost")
    return PlannedOperation(
        name=key,
        kind=_kind(key),
        preferred=compute_unit(entry["dispatch"]),
        supported=tuple(compute_unit(unit) for unit in entry.get("supported", ())),
        cost_share=None if cost is None else float(cost) / _WHOLE,
    )


def _kind(key: str) -> str:
    """Return the operation between its number and its inputs: ``ios17.reduce_mean`` of ``3_ios17.reduce_mean_x``."""
    operator_set, dot, rest = key.partition("_")[2].rpartition(".")
    words = rest.split("_")
    lengths = [n for n in range(1, len(words) + 1) if "_".join(words[:n]) in _LONG_NAMES]
    return operator_set + dot + "_".join(words[: max(lengths, default=1)])
