"""What is read off a program's operations: arithmetic in closed form, families, weights and how they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nas.export.mil import weight_bytes
from nas.export.mil.facts import TensorFact, operation_facts

from .building import built

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.mil.facts import OperationFact

KERNEL = np.ones((32, 8, 3, 5), dtype=np.float16)  # two groups of 8 of 16 channels
WEIGHT = np.ones((24, 40), dtype=np.float16)


def network(mb: Any, x: Any, q: Any, k: Any, u: Any) -> Any:
    conv = mb.conv(x=x, weight=KERNEL, groups=2, strides=[2, 2], pad_type="same", name="conv")  # (1, 32, 6, 10)
    attention = mb.scaled_dot_product_attention(query=q, key=k, value=k, name="attention")  # (3, 4, 5, 8)
    product = mb.matmul(x=q, y=k, transpose_y=True, name="product")  # (3, 4, 5, 7)
    summed = mb.einsum(values=(q, u), equation="nchw,nwhu->nchu", name="summed")  # (3, 4, 5, 7)
    turned = mb.transpose(x=mb.reshape(x=conv, shape=[1, 32, 60]), perm=[0, 2, 1], name="turned")
    linear = mb.linear(x=mb.slice_by_size(x=mb.concat(values=(turned, turned), axis=2), begin=[0, 0, 0],
                       size=[1, 60, 40]), weight=WEIGHT, name="linear")  # fmt: skip
    return attention, mb.silu(x=mb.add(x=product, y=summed)), mb.reduce_mean(x=linear, axes=[1])


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OperationFact]:
    path = tmp_path_factory.mktemp("facts") / "p.mlpackage"
    shapes = {"x": (1, 16, 12, 20), "q": (3, 4, 5, 8), "k": (3, 4, 7, 8), "u": (3, 8, 5, 7)}
    return {fact.name: fact for fact in operation_facts(built(path, shapes, network, dtype=np.float16))}


@pytest.mark.parametrize(
    ("name", "family", "flops"),
    [
        ("conv", "convolution", 2 * 32 * 6 * 10 * 8 * 3 * 5),
        ("attention", "attention", 4 * 3 * 4 * 5 * 7 * 8),
        ("product", "product", 2 * 3 * 4 * 5 * 7 * 8),
        ("summed", "product", 2 * 3 * 4 * 5 * 7 * 8),
        ("turned", "layout", 0),
        ("linear", "linear", 2 * 60 * 24 * 40),
    ],
)
def test_arithmetic_in_closed_form(facts: dict[str, OperationFact], name: str, family: str, flops: int) -> None:
    assert (facts[name].family, facts[name].flops) == (family, flops)


def test_families_of_the_rest(facts: dict[str, OperationFact]) -> None:
    found = {fact.type: fact.family for fact in facts.values()}
    assert found["reshape"] == "view"
    assert found["silu"] == found["add"] == "pointwise"
    assert found["reduce_mean"] == "reduction"
    assert found["concat"] == found["slice_by_size"] == "other"


def test_weights_of_an_operation(facts: dict[str, OperationFact]) -> None:
    conv = facts["conv"]
    assert (conv.weight_elements, conv.weight_bits, conv.weight_form) == (KERNEL.size, 16.0, "plain")
    assert dict(conv.options) == {
        "in_channels": 16, "out_channels": 32, "stride": 2, "groups": 2, "kernel_0": 3, "kernel_1": 5
    }  # fmt: skip
    assert dict(facts["attention"].options) == {"heads": 4}
    assert facts["attention"].weight_elements == 0


def test_lists_of_sizes_in_the_weight_file_are_no_weights(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.split(x=x, split_sizes=[1] * 20, axis=1, name="pieces")

    program = built(tmp_path / "p.mlpackage", {"x": (2, 20)}, build, dtype=np.float16)
    assert weight_bytes(program).stored == 20 * 4  # so they do lie there
    (fact,) = operation_facts(program)
    assert (fact.weight_elements, fact.weight_dtypes) == (0, ())


def test_rows_are_padded_on_the_last_axis() -> None:
    tensor = TensorFact(name="x", shape=(2, 3, 5), dtype="float16", element_bytes=2)
    assert (tensor.num_bytes, tensor.padded_bytes(64)) == (60, 2 * 3 * 64)
    flat = TensorFact(name="x", shape=(3, 5), dtype="float16", element_bytes=2)
    assert flat.padded_bytes(64) == 30
