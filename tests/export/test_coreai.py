"""Core AI as a second opinion: its entry points replaced at their boundary, and itself where it is installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from nas.core.errors import UnavailableError, VerificationError
from nas.export.coreai import export_coreai, require_coreai
from tests.export.fake_coreai import FakeCoreAi, small_component

if TYPE_CHECKING:
    from pathlib import Path


def test_figures_are_those_of_the_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeCoreAi(error=1e-5).install(monkeypatch)
    opinion = export_coreai(small_component(), tmp_path / "denoiser.aimodel")
    assert opinion.max_absolute == pytest.approx(1e-5, rel=0.05)
    assert opinion.package.path == "denoiser.aimodel"
    assert opinion.by == "Core AI 0.0-fake, float32, its own interpreter on this machine"
    assert opinion.psnr_db is not None
    assert opinion.psnr_db > 60.0
    assert capsys.readouterr().out == ""


def test_equal_values_have_no_psnr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCoreAi().install(monkeypatch)
    opinion = export_coreai(small_component(), tmp_path / "denoiser.aimodel")
    assert (opinion.max_absolute, opinion.psnr_db) == (0.0, None)


def test_other_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCoreAi(error=0.1).install(monkeypatch)
    with pytest.raises(VerificationError, match=r"computes the denoiser otherwise than PyTorch.*allowed 0\.001"):
        export_coreai(small_component(), tmp_path / "denoiser.aimodel")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCoreAi(error=float("nan")).install(monkeypatch)
    with pytest.raises(VerificationError, match="otherwise than PyTorch"):
        export_coreai(small_component(), tmp_path / "denoiser.aimodel")


def test_a_network_it_cannot_convert_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCoreAi(fault=NotImplementedError("no aten.conv_transpose3d\nstack")).install(monkeypatch)
    with pytest.raises(
        VerificationError, match=r"convert or compute the denoiser: no aten\.conv_transpose3d$"
    ) as caught:
        export_coreai(small_component(), tmp_path / "denoiser.aimodel")
    assert caught.value.hint == "set export.coreai to false; the Core ML package does not depend on it"


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coreai_torch", None)
    monkeypatch.setitem(sys.modules, "coreai", None)
    with pytest.raises(
        UnavailableError, match="needs coreai-core and coreai-torch, which cannot be imported"
    ) as caught:
        require_coreai()
    assert caught.value.exit_code == 6
    assert "mobile-video-nas[coreai]" in str(caught.value.hint)


def test_apples_interpreter_computes_what_torch_does(tmp_path: Path) -> None:
    pytest.importorskip("coreai_torch", reason="the coreai extra is not installed")
    opinion = export_coreai(small_component(), tmp_path / "denoiser.aimodel")
    assert opinion.max_relative < 1e-5
    assert opinion.package.num_bytes > 4 * (8 * 16 + 16 + 16 * 4 + 4)
