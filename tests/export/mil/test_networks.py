"""Whole networks of the kind a video pipeline needs, converted small and computed beside torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import search_spaces
from benchmarks.executor_networks import NARROW, OTHERS, TOY, narrow_space, random_component, trained
from nas.export.coreml import convert, save
from nas.export.mil import compare_outputs, execute, missing_operations, read_program
from nas.export.parity import compute_parity
from nas.export.shims import repaired_coremltools
from nas.export.trace import trace

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


def converted(network: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Path:
    """Save ``network`` in float16, traced as coremltools asks for it."""
    with repaired_coremltools() as coremltools, torch.no_grad():
        ports = [
            coremltools.TensorType(
                name=f"input_{place}",
                shape=tuple(item.shape),
                dtype=np.float16 if item.is_floating_point() else np.int32,
            )
            for place, item in enumerate(inputs)
        ]
        model = coremltools.convert(
            torch.jit.trace(network, inputs, check_trace=False),
            convert_to="mlprogram",
            inputs=ports,
            outputs=[coremltools.TensorType(name="result", dtype=np.float16)],
            minimum_deployment_target=coremltools.target.iOS18,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


@pytest.mark.filterwarnings("ignore")  # the tracer's, about shapes that become constants
@pytest.mark.parametrize("name", OTHERS)
def test_network_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    chosen = OTHERS[name]
    torch.manual_seed(0)
    network = trained(chosen.make())
    with torch.no_grad():
        for parameter in network.parameters():  # as the package stores them
            parameter.copy_(parameter.half())
        expected = {"result": network(*chosen.inputs)}
    program = read_program(converted(network, chosen.inputs, tmp_path / "network.mlpackage"))
    inputs = {f"input_{place}": item for place, item in enumerate(chosen.inputs)}
    assert missing_operations(program) == ()
    (single,) = compare_outputs(expected, execute(program, inputs))
    (half,) = compare_outputs(expected, execute(program, inputs, precision="float16"))
    assert single.max_relative < 1e-3
    assert half.max_relative < 1e-2


@pytest.mark.parametrize(("space", "seed"), [("tiny", 0), ("tiny", 3), ("narrow", 1)])
def test_random_network_of_a_space_computes_what_torch_computes(space: str, seed: int, tmp_path: Path) -> None:
    component, _ = (
        random_component(search_spaces.get("tiny"), TOY, seed)
        if space == "tiny"
        else random_component(narrow_space(), NARROW, seed)
    )
    path = tmp_path / "network.mlpackage"
    save(convert(trace(component), component), path)
    single, _, half = compute_parity(path, component).rows
    assert single.max_relative < 1e-3
    assert half.max_relative < 1e-2
