"""Block signatures read back."""

from __future__ import annotations

import pytest

from nas.core.workload import BlockSpec


@pytest.mark.parametrize("spec", [BlockSpec.of("conv1d", channels=64, frames=8), BlockSpec.of("norm")])
def test_a_signature_reads_back(spec: BlockSpec) -> None:
    assert BlockSpec.parse(spec.signature) == spec


@pytest.mark.parametrize("text", ["conv1d", "conv1d(channels=x)", "conv1d(channels)", "conv1d(a=1", ""])
def test_text_that_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a block is written"):
        BlockSpec.parse(text)
