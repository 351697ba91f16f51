"""What a compute unit makes of an operation: the steps it really runs, the bytes they move, the scratch they hold.

Pure descriptions, no torch. A lowering is a property of the target, not of the network: the Neural Engine has no fused
attention, so the scores are written out and read back; the GPU has one, but its pattern was wrong for ten rows or more.

Sources: Core ML's own exporters (github.com/apple/ml-ane-transformers, github.com/apple/ml-stable-diffusion,
``SPLIT_EINSUM`` and ``SPLIT_EINSUM_V2``), coremltools issue 2650 (the GPU's fused pattern for batch >= 10), coremltools
9.0's conversion of a group norm into eight operations (counted on a converted UNet).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.workload import Operation, TensorSpec

WorkKind = Literal["conv3x3", "conv1x1", "conv", "temporal_conv", "conv3d", "linear", "attention", "vector"]
WORK_KINDS: tuple[WorkKind, ...] = get_args(WorkKind)

# Passes over the tensor of one group norm in eight operations: mean (1), subtract (2), square (2), mean (1), divide
# (2), scale and shift (2). Where neighbouring pointwise operations are one: mean (1), variance (1), the rest (2).
# A layer norm is one operation everywhere: read twice, written once.
_GROUP_NORM_PASSES, _STITCHED_GROUP_NORM_PASSES, _LAYER_NORM_PASSES = 10, 4, 3
_GROUP_NORM_LAUNCHES = 8
_POINTWISE = ("silu", "add", "geglu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """How a compute unit runs attention and norms, and how it lays tensors out.

    Attributes:
        name: What device files call it.
        fused_attention: Whether scores stay inside one kernel.
        max_fused_batch: Most batch rows that the fused kernel is right for; more are decomposed. None for any number.
        per_head: Whether heads are separate steps, as split einsum has them.
        query_chunk: Queries whose scores are alive at once; None for all.
        row_bytes: The last axis of a tensor is padded to a multiple of this; 1 for no padding.
        tokens_last: Whether token tensors (batch, tokens, width) are kept as (batch, width, 1, tokens).
        group_norm_decomposed: Whether a group norm is eight operations.
        geglu_split: Whether a gated feed-forward is one projection whose two halves become tensors of their own.
        stitches_pointwise: Whether pointwise operations ride on the one before: only further inputs are moved.
        conv3d_as_conv2d: Whether a 3-D convolution with a (k, 1, 1) kernel is run as Conv2d (k, 1), exactly.
        conv3d_by_frame: Whether any other is one Conv2d for every distance in frames, added up.
        heads_in_turn: Whether a head's product with the values is finished before the next head's scores are made.
        chunk_above: Elements of one head's scores above which queries come in chunks; 0 for always.
        long_axis_last: Whether tokens (pixels, frames, width) are kept as (frames, width, 1, pixels), the longer of the
            first two axes last.
    """

    name: str
    fused_attention: bool
    max_fused_batch: int | None = None
    per_head: bool = False
    query_chunk: int | None = None
    row_bytes: int = 1
    tokens_last: bool = False
    group_norm_decomposed: bool = False
    geglu_split: bool = False
    stitches_pointwise: bool = False
    conv3d_as_conv2d: bool = False
    conv3d_by_frame: bool = False
    heads_in_turn: bool = False
    chunk_above: int = 0
    long_axis_last: bool = False

    @property
    def text(self) -> str:
        """What it does with attention, in words."""
        if self.fused_attention:
            most = "" if self.max_fused_batch is None else f", beyond {self.max_fused_batch} batch rows written out"
            return f"attention in one fused kernel{most}"
        heads = "head by head, " if self.per_head else ""
        chunk = f"{self.query_chunk} queries at a time" if self.query_chunk else "all queries at once"
        return f"attention scores written out, {heads}{chunk}"


_SPLIT_EINSUM = {
    "fused_attention": False,
    "per_head": True,
    "row_bytes": 64,
    "tokens_last": True,
    "group_norm_decomposed": True,
    "stitches_pointwise": True,
    "conv3d_as_conv2d": True,
}
LOWERINGS: dict[str, Lowering] = {
    lowering.name: lowering
    for lowering in (
        Lowering(name="split_einsum", **_SPLIT_EINSUM),  # type: ignore[arg-type]  # one dict of mixed flags
        Lowering(name="split_einsum_v2", query_chunk=512, **_SPLIT_EINSUM),  # type: ignore[arg-type]  # as above
        # What this project's exports for the Neural Engine are (nas.export.lowering).
        Lowering(
            name="long_axis_last",
            query_chunk=512,
            chunk_above=2**23,
            conv3d_by_frame=True,
            heads_in_turn=True,
            long_axis_last=True,
            **_SPLIT_EINSUM,  # type: ignore[arg-type]  # as above
        ),
        Lowering(
            name="fused_sdpa",
            fused_attention=True,
            max_fused_batch=9,
            group_norm_decomposed=True,
            stitches_pointwise=True,
        ),
        Lowering(name="decomposed", fused_attention=False, group_norm_decomposed=True, geglu_split=True),
        # A converted program: what it says is what is run, one operation each.
        Lowering(name="program_neural_engine", fused_attention=False, row_bytes=64, stitches_pointwise=True),
        Lowering(name="program_gpu", fused_attention=True, max_fused_batch=9, stitches_pointwise=True),
        Lowering(name="program_cpu", fused_attention=False),
        Lowering(name="torch", fused_attention=True),
        Lowering(name="torch_cuda", fused_attention=True),
    )
}
# Those that a package for a phone can be converted for; the others are of converted programs, and how torch runs
# networks on a host.
PACKAGE_LOWERINGS = tuple(name for name in LOWERINGS if not name.startswith(("program", "torch")))


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFeatures:
    """Work of one operation and the shapes it runs at.

    ``moved_bytes`` are activation bytes read and written, without padding or scratch.
    """

    kind: str
    flops: int
    weight_bytes: int
    moved_bytes: int
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    element_bytes: int
    options: tuple[tuple[str, int], ...] = ()

    def option(self, name: str, default: int) -> int:
        """Return one of the operation's options."""
        return dict(self.options).get(name, default)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel of a convolution by axis; empty for other operations."""
        return tuple(value for name, value in self.options if name.startswith("kernel_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing a unit runs: arithmetic, weights read, activations moved.

    ``resident_bytes`` is what must fit on the chip for its activations not to go through memory; ``in_channels`` and
    ``out_channels`` are 0 where the unit's channel padding does not apply; ``launches`` counts dispatched operations.
    """

    work: WorkKind
    flops: float
    weight_bytes: int
    moved_bytes: int
    resident_bytes: int
    in_channels: int = 0
    out_channels: int = 0
    launches: int = 1


def describe_operation(operation: Operation, tensors: Mapping[str, TensorSpec]) -> OperationFeatures:
    """Return the features of ``operation``, whose tensors are looked up by name."""
    names = (*operation.inputs, *operation.outputs)
    output = tensors[operation.outputs[0]]
    return OperationFeatures(
        kind=operation.kind,
        flops=operation.flops,
        weight_bytes=operation.weight_bytes,
        moved_bytes=sum(tensors[name].num_bytes for name in names),
        inputs=tuple(tensors[name].shape for name in operation.inputs),
        output=output.shape,
        element_bytes=output.element_bytes,
        options=operation.options,
    )


def work_kind(operation: OperationFeatures, lowering: Lowering) -> WorkKind:
    """Return which compute rate an operation runs at on a unit with ``lowering``."""
    if operation.kind in ("linear", "attention"):
        return "linear" if operation.kind == "linear" else "attention"
    if operation.kind == "product":  # of two activations, as attention has them
        return "attention"
    kernel = operation.kernel
    if not kernel:
        # Without options nothing but arithmetic tells a matrix product from an element-wise operation.
        return "linear" if operation.flops else "vector"
    as_conv2d = lowering.conv3d_by_frame or (lowering.conv3d_as_conv2d and kernel[1:] == (1, 1))
    if len(kernel) == 3 and not as_conv2d:
        return "conv3d"
    if prod(kernel) == 1:
        return "conv1x1"
    if prod(kernel[1:]) == 1:
        return "temporal_conv"
    winograd = kernel[-2:] == (3, 3) and operation.option("stride", 1) == 1 and operation.option("groups", 1) == 1
    return "conv3x3" if winograd else "conv"


def padded_bytes(shape: tuple[int, ...], element_bytes: int, lowering: Lowering) -> int:
    """Return the bytes of a tensor on a unit: the axis it keeps last is padded to ``row_bytes``."""
    if lowering.row_bytes <= 1 or len(shape) < 3:
        return prod(shape) * element_bytes
    last = laid_out(shape, lowering)[1] if lowering.tokens_last and len(shape) == 3 else shape[-1]
    row = -(-last * element_bytes // lowering.row_bytes) * lowering.row_bytes
    return prod(shape) // last * row


def laid_out(shape: tuple[int, ...], lowering: Lowering) -> tuple[int, ...]:
    """Return the shape that a unit keeps a tensor in: of tokens (batch, tokens, width) the longer axis as tokens."""
    if lowering.long_axis_last and len(shape) == 3 and shape[0] > shape[1]:
        return (shape[1], shape[0], shape[2])
    return shape


def attention_scratch_bytes(operation: OperationFeatures, lowering: Lowering) -> int:
    """Return the bytes of attention scores that are alive at once while ``operation`` runs; 0 for anything else.

    Fused kernels keep the scores to themselves. Decomposed ones hold ``batch x heads x queries x keys`` of them, of
    ``query_chunk`` queries at a time where the lowering has chunks.
    """
    if operation.kind != "attention" or _is_fused(operation, lowering):
        return 0
    batch, heads, queries, keys = _attention_shape(operation)
    queries = _queries_at_once(batch, queries, keys, lowering)
    if lowering.heads_in_turn:
        return _scores_of_a_head(operation, lowering, batch=batch, queries=queries, keys=keys)
    # Scores are kept as (batch, heads, keys, queries): queries are the last axis.
    return padded_bytes((batch, heads, keys, queries), operation.element_bytes, lowering)


def _queries_at_once(batch: int, queries: int, keys: int, lowering: Lowering) -> int:
    if lowering.query_chunk is None or batch * queries * keys <= lowering.chunk_above:
        return queries
    return min(queries, lowering.query_chunk)


def _scores_of_a_head(operation: OperationFeatures, lowering: Lowering, *, batch: int, queries: int, keys: int) -> int:
    """Bytes of one head's scores and their softmax beyond the room that the operation's output has until it is made."""
    shape = (1, queries, keys, batch) if lowering.long_axis_last and batch > queries else (batch, 1, keys, queries)
    scores = 2 * padded_bytes(shape, operation.element_bytes, lowering)
    return max(0, scores - padded_bytes(operation.output, operation.element_bytes, lowering))


def scratch_bytes(operation: OperationFeatures, lowering: Lowering, *, input_outlives: bool) -> int:
    """Return what an operation holds beside its inputs and outputs while it runs as the lowering says.

    A convolution over frames that is one for every distance has the frames it reads, what it makes of them and both
    halves of the sum alive. A decomposed group norm has its input less the mean and the square of that alive at once,
    beside the input where that is read later. A gated feed-forward that is split has its projection and both halves
    alive at once.

    Args:
        operation: What is run.
        lowering: How.
        input_outlives: Whether a later operation reads the first input too.
    """
    output = padded_bytes(operation.output, operation.element_bytes, lowering)
    if operation.kind == "group_norm":
        return output if lowering.group_norm_decomposed and input_outlives else 0
    if operation.kind == "geglu":
        return output if lowering.geglu_split else 0
    if operation.kind == "conv3d" and lowering.conv3d_by_frame and prod(operation.kernel[1:]) > 1:
        frames = operation.output[2]
        source = padded_bytes(operation.inputs[0], operation.element_bytes, lowering)
        return (source + output if source > output else 2 * output) * (frames - 1) // frames
    return attention_scratch_bytes(operation, lowering)


@lru_cache(maxsize=65536)
def lower(operation: OperationFeatures, lowering: Lowering) -> tuple[Step, ...]:
    """Return the steps that a unit runs for ``operation``."""
    shapes = (*operation.inputs, operation.output)
    sizes = [padded_bytes(shape, operation.element_bytes, lowering) for shape in shapes]
    if operation.kind == "attention":
        return _attention_steps(operation, lowering, sizes)
    moved, launches = _moved(operation, lowering, sizes)
    # A look-up reads the rows it returns, not the table.
    weight_bytes = sizes[-1] if operation.kind == "embedding" else operation.weight_bytes
    return (
        Step(
            work=work_kind(operation, lowering),
            flops=operation.flops,
            weight_bytes=weight_bytes,
            moved_bytes=moved,
            resident_bytes=max(sizes),
            in_channels=operation.option("in_channels", 0),
            out_channels=operation.option("out_channels", 0),
            launches=launches,
        ),
    )


def _moved(operation: OperationFeatures, lowering: Lowering, sizes: list[int]) -> tuple[int, int]:
    """Return the activation bytes an operation moves and how many operations it is."""
    if operation.kind == "layer_norm":
        return _LAYER_NORM_PASSES * sizes[-1], 1
    if operation.kind == "group_norm":
        if not lowering.group_norm_decomposed:
            return _LAYER_NORM_PASSES * sizes[-1], 1
        passes = _STITCHED_GROUP_NORM_PASSES if lowering.stitches_pointwise else _GROUP_NORM_PASSES
        return passes * sizes[-1], _GROUP_NORM_LAUNCHES
    if operation.kind == "layout" and lowering.tokens_last:
        batches = [laid_out(shape, lowering)[0] for shape in (operation.inputs[0], operation.output)]
        if batches[0] == batches[1]:
            return 0, 0  # (batch, channels, height, width) to (batch, channels, 1, tokens) and back are views
    if operation.kind in _POINTWISE and lowering.stitches_pointwise:
        return sum(sizes[1:-1]), 1
    return sum(sizes), 1


def _attention_steps(operation: OperationFeatures, lowering: Lowering, sizes: list[int]) -> tuple[Step, ...]:
    batch, heads, queries, keys = _attention_shape(operation)
    query_bytes, key_bytes, value_bytes, out_bytes = sizes
    if _is_fused(operation, lowering):
        return (
            Step(
                work="attention",
                flops=operation.flops,
                weight_bytes=0,
                moved_bytes=query_bytes + key_bytes + value_bytes + out_bytes,
                resident_bytes=max(sizes),
            ),
        )
    scores = padded_bytes((batch, heads, keys, queries), operation.element_bytes, lowering)
    chunks = -(-queries // _queries_at_once(batch, queries, keys, lowering))
    launches = (heads if lowering.per_head else 1) * chunks
    # One head of one batch row and one chunk is what is worked on at a time.
    resident = scores // (batch * heads * chunks)
    product = {"work": "attention", "flops": operation.flops / 2, "weight_bytes": 0, "resident_bytes": resident}
    return (
        Step(moved_bytes=query_bytes + key_bytes * chunks + scores, launches=launches, **product),  # type: ignore[arg-type]  # shared fields
        Step(
            work="vector",
            flops=0,
            weight_bytes=0,
            moved_bytes=2 * scores,
            resident_bytes=resident,
            launches=launches,
        ),
        Step(moved_bytes=scores + value_bytes * chunks + out_bytes, launches=launches, **product),  # type: ignore[arg-type]  # as above
    )


def _attention_shape(operation: OperationFeatures) -> tuple[int, int, int, int]:
    """Return (batch, heads, queries, keys) from tensors (batch, tokens, width)."""
    batch, queries, _ = operation.output
    keys = operation.inputs[1][1]
    return batch, operation.option("heads", 1), queries, keys


def _is_fused(operation: OperationFeatures, lowering: Lowering) -> bool:
    most = lowering.max_fused_batch
    return lowering.fused_attention and (most is None or operation.output[0] <= most)
