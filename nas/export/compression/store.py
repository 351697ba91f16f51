"""A package with its weights in other forms, written by ``coremltools.optimize.coreml``.

coremltools is imported inside functions: it costs seconds and only compression needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.core.errors import VerificationError
from nas.export.compression.candidates import block_sizes
from nas.export.compression.tables import nearest_entries
from nas.export.coreml import save
from nas.export.mil.program import CONSTANT_PREFIX, read_program
from nas.export.shims import repaired_coremltools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nas.export.compression.cache import Cache
    from nas.export.compression.forms import Form
    from nas.export.compression.weights import Weight
    from nas.export.mil.values import Array


def store_compressed(
    source: Path, target: Path, weights: Sequence[Weight], plan: Mapping[str, Form], *, cache: Cache
) -> None:
    """Write the package ``source`` to ``target`` with every weight in the form of ``plan``.

    Tables are those of ``cache``; steps of linear forms and the choice of sparse values are coremltools' own.

    Raises:
        UnavailableError: coremltools is missing, or the disk is full.
        VerificationError: The saved package does not have every weight in its form.
    """
    with repaired_coremltools() as coremltools:
        from coremltools.optimize import coreml as optimize

        model = coremltools.models.MLModel(str(source), skip_model_load=True)
        passes: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
            ("palettize", optimize.palettize_weights, _palette),
            ("linear", optimize.linear_quantize_weights, _linear),
            ("sparse", optimize.prune_weights, _sparse),
        )
        for kind, compress, settings in passes:
            chosen = [weight for weight in weights if plan[weight.name].kind == kind]
            if chosen:
                configs = {weight.name: settings(optimize, weight, plan[weight.name], cache) for weight in chosen}
                model = compress(model, optimize.OptimizationConfig(global_config=None, op_name_configs=configs))
        save(model, target)
    _require_stored(target, weights, plan)


def _palette(optimize: Any, weight: Weight, form: Form, cache: Cache) -> Any:
    tables = cache.tables(weight, form)
    left = iter(tables)

    def table(values: Array) -> tuple[Array, Array]:
        """Return the next group's table and indices; coremltools asks for the groups in their order."""
        chosen = next(left)
        return chosen, nearest_entries(values, chosen).reshape(-1)

    grouped = {"granularity": "per_grouped_channel", "group_size": form.group_size, "channel_axis": weight.output_axis}
    return optimize.OpPalettizerConfig(
        mode="custom", lut_function=table, weight_threshold=0, **(grouped if form.group_size else {})
    )


def _linear(optimize: Any, weight: Weight, form: Form, _cache: Cache) -> Any:
    if form.block_size is None:
        return optimize.OpLinearQuantizerConfig(dtype=f"int{form.bits}", weight_threshold=0)
    return optimize.OpLinearQuantizerConfig(
        dtype=f"int{form.bits}", granularity="per_block", block_size=block_sizes(weight, form), weight_threshold=0
    )


def _sparse(optimize: Any, _weight: Weight, form: Form, _cache: Cache) -> Any:
    return optimize.OpMagnitudePrunerConfig(target_sparsity=1 - form.bits / 16, weight_threshold=0)


def _require_stored(target: Path, weights: Sequence[Weight], plan: Mapping[str, Form]) -> None:
    stored = sum(operation.type.startswith(CONSTANT_PREFIX) for operation in read_program(target).function().operations)
    wanted = sum(plan[weight.name].kind != "float16" for weight in weights)
    if stored != wanted:
        raise VerificationError(
            f"{target}: coremltools compressed {stored} of {wanted} weights",
            hint="the package was not kept; this is a fault of the compression, please report it",
        )
