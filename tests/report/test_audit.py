"""The audit of a package in the page: findings, refusals with source, and a damaged file named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nas.core.files import write_json
from nas.core.schema import with_schema
from nas.report.html import page_context, render
from nas.report.run_files import read_run

if TYPE_CHECKING:
    from pathlib import Path

OPERATION = {
    "index": 4,
    "type": "conv",
    "name": "conv_1",
    "shapes": [[1, 80, 8, 2, 2]],
    "dtype": "float16",
    "eligible": ["gpu", "cpu"],
    "unit": "cpu",
    "refused": [{"unit": "neural_engine", "rule": "neural_engine-kinds", "reason": "conv3d does not run there"}],
    "flops": 1000,
    "layout": "",
    "padding_bytes": 76800,
    "time_ms": 0.25,
    "time_share_ratio": 0.5,
}
PACKAGE: dict[str, Any] = {
    "package": "denoiser.mlpackage",
    "summary": {
        "operations": 12,
        "home_unit": "neural_engine",
        "on_home_unit": 11,
        "nowhere": 0,
        "segments": 3,
        "crossings": 2,
        "time_ms": 0.75,
        "switching_ms": 0.25,
        "home_time_ratio": 0.5,
        "layout_copies": 2,
        "layout_copy_bytes": 4096,
        "layout_copy_ms": 0.01,
        "row_changes": 1,
        "padding_bytes": 76800,
        "stored_bytes": 25600,
        "padding_ratio": 3.0,
    },
    "memory": {
        "activation_peak_bytes": 226_818,
        "activation_peak_at": "main #9 split 'halves'",
        "padded_peak_bytes": 825_090,
        "weight_bytes": 2_000_000,
        "decompressed_bytes": 4_000_000,
        "units": [{"unit": "gpu", "resident_weight_bytes": 2_000_000, "least_bytes": 2_226_818}],
    },
    "refusals": [
        {
            "unit": "neural_engine",
            "rule": "neural_engine-kinds",
            "type": "conv",
            "reason": "conv3d does not run there",
            "count": 1,
            "first": "main #4 conv 'conv_1'",
            "source": "coremltools issue 1368",
        }
    ],
    "notes": [
        {
            "unit": "gpu",
            "rule": "gpu-attention-rows",
            "text": "wrong for ten rows",
            "count": 2,
            "first": "main #7",
            "source": "coremltools issue 2650",
        }
    ],
    "operations": [OPERATION],
}
DESCRIBED = {"lowering": "long_axis_last", "activation_peak_bytes": 226_818, "padded_peak_bytes": 1, "weight_bytes": 1}
AUDIT = {
    "described": DESCRIBED,
    "device": "iphone16_pro_max",
    "chip": "A18 Pro",
    "compute_units": "cpu_and_ne",
    "packages": [PACKAGE],
}


def with_audit(run_dir: Path, audit: dict[str, Any]) -> dict[str, Any]:
    (folder,) = (path for path in (run_dir / "export").iterdir() if path.is_dir())
    write_json(folder / "audit.json", with_schema("audit", 1, audit))
    return page_context(read_run(run_dir)) | {"tables": []}


def test_audit_is_shown_with_sources(run_dir: Path) -> None:
    page = render(with_audit(run_dir, AUDIT))
    assert "for iphone16_pro_max (A18 Pro)" in page
    assert "Neural Engine: 1 of 12 operations are not eligible; 3 segments, 2 crossings" in page
    assert "activations 0.227 MB at the peak" in page
    assert "the program needs 0.227 MB, 1.000 times that" in page
    assert "coremltools issue 1368" in page
    assert "wrong for ten rows (2 operations" in page
    assert "(1, 80, 8, 2, 2) float16" in page


@pytest.mark.parametrize("missing", ["summary", "notes"])
def test_damaged_audit_is_named_and_left_out(run_dir: Path, missing: str) -> None:
    context = with_audit(run_dir, {**AUDIT, "packages": [{**PACKAGE, missing: None}]})
    assert context["audits"] == {}
    (fault,) = [item for item in context["faults"] if item.file.endswith("audit.json")]
    assert "is not built as an audit" in fault.message


def test_page_without_an_audit_has_no_section_for_it(run_dir: Path) -> None:
    assert "Audit of" not in render(page_context(read_run(run_dir)) | {"tables": []})
