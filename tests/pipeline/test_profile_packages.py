"""``profile.backend``: packages measured on a Mac or an attached phone, and what a machine without either says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from latency_models import scan_profile
from tests.latency_models.conftest import CountingBackend
from tests.pipeline.test_kit import nas, replace_export, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models import MeasurementJob, MeasurementPlan
    from latency_models.backends.coreml import PackageOf
    from nas.core.profile import ProfileRecord

ON_MAC = {"name: iphone16_pro_max": "name: mac_m3", "networks: 12}": "networks: 12, backend: {type: coreml_host}}"}
ON_PHONE = {"networks: 12}": "networks: 12, passes: 1, backend: {type: coreml_device, udid: A}}"}


class Mac(CountingBackend):
    """Times nothing, but wants each package where it was promised."""

    def __init__(self, package_of: PackageOf) -> None:
        super().__init__()
        self.package_of = package_of

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        assert self.package_of(job).is_dir()
        return super().measure(job, plan, memory=memory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ON_MAC, "backend 'coreml_host' cannot measure here: it needs macOS (this is Linux)"),
        (ON_PHONE, "backend 'coreml_device' cannot measure here: it needs macOS (this is Linux), xcrun"),
    ],
)
def test_linux_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    export = replace_export(monkeypatch)
    result = nas("profile", write_run(tmp_path, **settings))
    assert result.exit_code == 6
    assert message in result.stderr
    assert "--kit DIR" in result.stderr
    assert export.written == []


def test_every_package_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = replace_export(monkeypatch)
    monkeypatch.setattr("nas.pipeline.profile_packages._backend", lambda _context, package_of: Mac(package_of))
    result = nas("profile", write_run(tmp_path, **ON_PHONE))
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "runs").iterdir()
    records = scan_profile(run / "profile" / "records.jsonl").profiles.records
    assert len(records) == len(export.written)
    assert f"measured {len(records)} packages" in result.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**ON_MAC, "name: iphone16_pro_max": "name: iphone16"}, "'coreml_host' measures a Mac (mac_m1, ...)"),
        ({**ON_PHONE, "name: iphone16_pro_max": "name: mac_m3"}, "'coreml_device' measures a phone or tablet"),
        ({**ON_PHONE, "precision: float16": "precision: float32"}, "packages are float16, scenario.precision is"),
        (
            {"networks: 12}": "networks: 12, backend: {type: coreml}}"},
            "type must be one of coreml_host, coreml_device, got 'coreml'",
        ),
    ],
)
def test_a_backend_that_cannot_be_meant_is_a_fault(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    result = nas("profile", write_run(tmp_path, **settings), "--dry-run")
    assert result.exit_code == 2
    assert "profile.backend" in result.stderr
    assert message in result.stderr


def test_doctor_lists_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    rows = {row["name"]: row for row in json.loads(nas("doctor", "--json").stdout)["machine"]}
    phone = rows["measure packages on an attached phone (profile.backend coreml_device)"]
    assert (phone["available"], "xcodebuild" in phone["text"]) == (False, True)
    assert not rows["measure packages on this Mac (profile.backend coreml_host)"]["available"]
