from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.damaged_packages import Source, damaged, make_source, outcome
from benchmarks.damages import KINDS
from nas.pipeline.verify_package import VerifyOptions, verify_exported

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return make_source(tmp_path_factory.mktemp("whole"))


def test_the_whole_package_is_verified(source: Source) -> None:
    assert verify_exported(str(source.path), VerifyOptions())[0].verdict == "verified"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_or_a_difference_and_never_verified(kind: str, source: Source, tmp_path: Path) -> None:
    found = outcome(kind, damaged(source, tmp_path / "copy", kind, 7), source)
    assert found.recorded in {"exit 3", "exit 5", "exit 6"}
    assert found.alone in {"exit 3", "exit 5", "exit 6", "differs", "same outputs"}
    assert found.message
