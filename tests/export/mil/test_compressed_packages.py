"""Packages compressed by coremltools, against the same packages made dense again by coremltools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from nas.export.mil import execute, read_program, weight_bytes
from nas.export.shims import load_coremltools

from .building import unsaved_model

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(1)
CONV = RANDOM.standard_normal((32, 16, 3, 3)).astype(np.float32)
LINEAR = RANDOM.standard_normal((24, 32 * 16)).astype(np.float32)
BIAS = RANDOM.standard_normal(24).astype(np.float32)  # too small to be compressed
DENSE_BYTES = 4 * (CONV.size + LINEAR.size)
IMAGE = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(2))


def network(mb: Any, x: Any) -> Any:
    hidden = mb.relu(x=mb.conv(x=x, weight=CONV, pad_type="same"))
    return mb.linear(x=mb.reshape(x=hidden, shape=[1, 512]), weight=LINEAR, bias=BIAS)


def compressed(model: Any, kind: str) -> Any:
    from coremltools.optimize import coreml as optimize

    def config(settings: Any) -> Any:
        return optimize.OptimizationConfig(global_config=settings)

    palette, prune = optimize.OpPalettizerConfig, optimize.OpMagnitudePrunerConfig(target_sparsity=0.5)
    if kind.startswith("palette"):
        return optimize.palettize_weights(model, config(palette(mode="uniform", nbits=int(kind.split()[1]))))
    if kind == "grouped palette":
        settings = palette(mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=8)
        return optimize.palettize_weights(model, config(settings))
    if kind == "int8 per channel":
        return optimize.linear_quantize_weights(model, config(optimize.OpLinearQuantizerConfig(mode="linear")))
    if kind == "int4 per block":
        settings = optimize.OpLinearQuantizerConfig(dtype="int4", granularity="per_block", block_size=8)
        return optimize.linear_quantize_weights(model, config(settings))
    pruned = optimize.prune_weights(model, config(prune))
    if kind == "pruned":
        return pruned
    return optimize.palettize_weights(pruned, config(palette(mode="uniform", nbits=4)), joint_compression=True)


# Share of the dense bytes that the numbers take, and bytes of tables and scales beside them.
KINDS = {
    "palette 1": (1 / 32, 2 * 2 * 4),
    "palette 2": (2 / 32, 2 * 4 * 4),
    "palette 3": (3 / 32, 2 * 8 * 4),
    "palette 4": (4 / 32, 2 * 16 * 4),
    "palette 6": (6 / 32, 2 * 64 * 4),
    "palette 8": (8 / 32, 2 * 256 * 4),
    "grouped palette": (4 / 32, (32 // 8 + 24 // 8) * 16 * 4),
    "int8 per channel": (8 / 32, (32 + 24) * (4 + 1)),
    "int4 per block": (4 / 32, (32 * 16 // 8 + 24 * 512 // 8) * 4),  # blocks of 8 input channels, kernels whole
    "pruned": (0.5 + 1 / 32, 0),
    "pruned, then palette": (0.5 * 4 / 32 + 1 / 32, 2 * 16 * 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_package_computes_what_its_dense_form_computes(kind: str, tmp_path: Path) -> None:
    load_coremltools()
    from coremltools.optimize import coreml as optimize

    small = compressed(unsaved_model({"x": (1, 16, 4, 4)}, network), kind)
    dense = optimize.decompress_weights(small)
    programs = []
    for name, model in (("small", small), ("dense", dense)):
        model.save(str(tmp_path / f"{name}.mlpackage"))
        programs.append(read_program(tmp_path / f"{name}.mlpackage"))
    found, expected = (next(iter(execute(program, {"x": IMAGE}).values())) for program in programs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    weights = weight_bytes(programs[0])
    share, tables = KINDS[kind]
    assert weights.decompressed == DENSE_BYTES + BIAS.nbytes
    assert weights.stored == pytest.approx(share * DENSE_BYTES + tables + BIAS.nbytes, rel=0.01)
