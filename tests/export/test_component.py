"""Any network can be a component: several outputs, integer inputs, a reference of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from nas.export.checks import check_package
from nas.export.component import Component, InputPort, OutputPort, example_inputs, example_words
from nas.export.coreml import convert, save
from nas.export.package import read_package
from nas.export.parity import AS_STORED, UNTOUCHED, compute_parity, parity_checks
from nas.export.trace import trace

if TYPE_CHECKING:
    from pathlib import Path


class Embedder(nn.Module):
    """Two outputs from tokens and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 40)
        self.mix = nn.Linear(40, 24)

    def forward(self, tokens: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.mix(self.table(tokens) + vector[:, None])
        return hidden, hidden.mean(dim=1)


def embedder(*, reference: nn.Module | None = None) -> Component:
    torch.manual_seed(3)
    return Component(
        name="embedder",
        module=Embedder(),
        inputs=(
            InputPort(name="tokens", shape=(1, 5), dtype="int32", text="Numbers of words."),
            InputPort(name="vector", shape=(1, 40), text="Added to each."),
        ),
        outputs=(OutputPort(name="hidden", text="Of each word."), OutputPort(name="pooled", text="Of all.")),
        examples={"tokens": torch.tensor([[0, 3, 10, 1, 7]], dtype=torch.int32)},
        examples_text="five words",
        reference=reference,
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    component = embedder()
    path = tmp_path_factory.mktemp("component") / "embedder.mlpackage"
    save(convert(trace(component), component), path)
    return path


def test_tokens_and_several_outputs_go_through_the_whole_export(package: Path) -> None:
    component = embedder()
    checks = check_package(read_package(package), component)
    assert [check.name for check in checks if not check.passed] == []
    report = compute_parity(package, component)
    assert sorted(row.output for row in report.rows) == ["hidden"] * 3 + ["pooled"] * 3
    assert report.inputs == "standard normal vector (seed 0), five words"
    assert all(check.passed for check in parity_checks(report))


def test_ports_of_the_package_are_those_of_the_component(package: Path) -> None:
    found = read_package(package)
    assert list(map(str, found.inputs)) == ["tokens (1, 5) int32", "vector (1, 40) float16"]
    assert list(map(str, found.outputs)) == ["hidden (1, 5, 24) float16", "pooled (1, 24) float16"]


def test_weights_as_trained_are_those_of_the_reference(package: Path) -> None:
    torch.manual_seed(4)
    report = compute_parity(package, embedder(reference=Embedder()))
    assert all(row.max_relative < 1e-5 for row in report.rows if row.reference == AS_STORED)
    assert all(row.max_relative > 0.1 for row in report.rows if row.reference == UNTOUCHED)
    assert not all(check.passed for check in parity_checks(report))


def test_integer_input_needs_an_example() -> None:
    component = Component(
        name="embedder",
        module=Embedder(),
        inputs=(InputPort(name="tokens", shape=(1, 5), dtype="int32"),),
        outputs=(),
    )
    with pytest.raises(ValueError, match="embedder: integer input 'tokens' needs an example"):
        example_inputs(component)
    assert example_words(embedder()) == "standard normal vector (seed 0), five words"
