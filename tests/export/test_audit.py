"""The static audit: who runs what and why not, segments, padding, layout, memory, and faulty packages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from latency_models import device
from nas.cli.main import main
from nas.export.mil import read_program, weight_bytes
from nas.export.mil.facts import operation_facts
from nas.export.package import MODEL_FILE, WEIGHT_FILE
from nas.export.shims import load_coremltools
from nas.pipeline.audit import Described, audit_thing, write_audit
from nas.pipeline.audit_program import audit_program
from nas.report.audit import audit_text
from search_spaces import get

from .conftest import SCENARIO
from .mil.building import built, save_program

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Exported

KERNEL = np.ones((8, 8, 1, 3, 3), dtype=np.float16)


def mixed(mb: Any, x: Any) -> Any:
    """Float16 work cut twice: by a float32 sine, and by a convolution of three axes."""
    first = mb.silu(x=x, name="first")  # (1, 8, 4, 6, 6)
    wide = mb.cast(x=first, dtype="fp32", name="wide")
    back = mb.cast(x=mb.sin(x=wide, name="sine"), dtype="fp16", name="back")
    conv = mb.conv(x=back, weight=KERNEL, pad_type="same", name="conv")
    turned = mb.transpose(x=conv, perm=[0, 2, 1, 3, 4], name="turned")
    return mb.silu(x=mb.reshape(x=turned, shape=[1, 4, 8, 36], name="view"), name="last")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("audit") / "p.mlpackage"
    program = built(path, {"x": (1, 8, 4, 6, 6)}, mixed, dtype=np.float16)
    return audit_program(program, device("iphone16_pro_max"), "cpu_and_ne")


def test_operations_say_where_they_run_and_why_not(audited: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in audited["operations"]}
    assert {name: row["unit"] for name, row in rows.items()} == {
        "first": "neural_engine", "wide": "cpu", "sine": "cpu", "back": "cpu", "conv": "cpu",
        "turned": "neural_engine", "view": "neural_engine", "last": "neural_engine",
    }  # fmt: skip
    assert rows["sine"]["refused"][0]["rule"] == "ne-float16-only"
    assert rows["conv"]["refused"][0] == {
        "unit": "neural_engine", "rule": "neural_engine-kinds", "reason": "conv3d does not run there"
    }  # fmt: skip
    assert rows["conv"]["eligible"] == ["gpu", "cpu"]
    assert all("(read 20" in item["source"] or "guide" in item["source"] for item in audited["refusals"])


def test_segments_and_crossings(audited: dict[str, Any]) -> None:
    assert audited["segments"] == [
        {"unit": "neural_engine", "operations": 1},
        {"unit": "cpu", "operations": 4},
        {"unit": "neural_engine", "operations": 3},
    ]
    summary = audited["summary"]
    assert (summary["crossings"], summary["on_home_unit"], summary["operations"]) == (2, 4, 8)
    phone = device("iphone16_pro_max")
    engine, cpu = phone.unit("neural_engine"), phone.unit("cpu")
    assert summary["switching_ms"] == pytest.approx(
        engine.call_overhead_ms.value
        + cpu.segment_overhead_ms.value
        + engine.segment_overhead_ms.value
        + 2 * phone.crossing_ms.value
    )


def test_padding_and_layout_in_closed_form(audited: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in audited["operations"]}
    # 8 x 4 x 6 rows of 6 float16 in 64 bytes; 4 x 8 rows of 36 float16 in 128.
    assert rows["first"]["padding_bytes"] == 8 * 4 * 6 * (64 - 12)
    assert rows["last"]["padding_bytes"] == 4 * 8 * (128 - 72)
    assert (rows["turned"]["layout"], rows["view"]["layout"], rows["first"]["layout"]) == ("copy", "rows", "")
    assert rows["view"]["padding_bytes"] == rows["view"]["time_ms"] == 0
    assert audited["summary"]["layout_copy_bytes"] == 2 * 8 * 4 * 36


def test_time_shares_add_up_to_one(audited: dict[str, Any]) -> None:
    assert sum(row["time_share_ratio"] for row in audited["operations"]) == pytest.approx(1.0)


def test_memory_in_closed_form(audited: dict[str, Any]) -> None:
    size = 8 * 4 * 36
    memory = audited["memory"]
    # The input is the caller's; the sine has its float32 input and output alive.
    assert memory["activation_peak_bytes"] == 2 * size + 2 * 4 * size
    assert memory["activation_peak_at"].endswith("sin 'sine'")
    assert memory["weight_bytes"] == memory["decompressed_bytes"] == KERNEL.nbytes
    assert {unit["resident_weight_bytes"] for unit in memory["units"]} == {KERNEL.nbytes}


def test_limits_are_those_of_the_chip(tmp_path: Path) -> None:
    path = tmp_path / "long.mlpackage"
    program = built(path, {"x": (1, 1, 1, 20000)}, lambda mb, x: mb.silu(x=x, name="long"), dtype=np.float16)
    old = audit_program(program, device("iphone12"), "cpu_and_ne")
    assert old["refusals"][0]["reason"] == "an axis is 20,000, at most 16,384"
    assert old["summary"]["beyond_limits"] == 1


def test_risks_are_noted_once_with_their_count(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        one = mb.scaled_dot_product_attention(query=x, key=x, value=x)
        return mb.square(x=mb.scaled_dot_product_attention(query=one, key=one, value=one))

    program = built(tmp_path / "p.mlpackage", {"x": (16, 2, 8, 32)}, build, dtype=np.float16)
    notes = {note["rule"]: note for note in audit_program(program, device("iphone15_pro"), "cpu_and_gpu")["notes"]}
    assert notes["gpu-attention-rows"]["count"] == 2
    assert notes["ne-square-range"]["count"] == 1
    assert "coremltools issue 2650" in notes["gpu-attention-rows"]["source"]


def test_text_begins_with_what_is_wrong(audited: dict[str, Any]) -> None:
    found = {"device": "d", "chip": "c", "compute_units": "cpu_and_ne", "packages": [{"package": "p", **audited}]}
    text = audit_text(found, top=2)
    assert "Neural Engine: 4 of 8 operations are not eligible; 3 segments, 2 crossings" in text
    assert text.index("Not eligible:") < text.index("Operations by estimated time")
    assert len(text.split("Operations by estimated time")[1].splitlines()) == 1 + 1 + 2
    assert "Operations by estimated time" not in audit_text(found, top=0)


def test_audit_of_a_bundle_is_left_beside_its_packages(exported: Exported) -> None:
    workload = get("tiny").workload(exported.denoiser.architecture, SCENARIO)
    audit = write_audit(exported.folder, "host-cpu", described=Described(workload=workload, form="gpu"))
    assert audit["device"] == "iphone16_pro_max"  # Core ML runs on no host
    assert audit["described"]["weight_bytes"] == workload.weight_bytes
    assert "Denoiser by its description (fused_sdpa): activations" in audit_text(audit, top=0)
    written = json.loads((exported.folder / "audit.json").read_text())
    assert written == json.loads(json.dumps(audit))
    assert written["schema"] == "nas/audit/1"
    assert [item["package"] for item in written["packages"]] == ["denoiser.mlpackage"]
    (exported.folder / "audit.json").unlink()


def test_run_is_audited_for_its_own_device(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("device: {name: iphone12}\nscenario: {compute_units: cpu_and_gpu}\n")
    folder = tmp_path / "export" / "0123"
    folder.mkdir(parents=True)
    save_program(folder / "denoiser.mlpackage", {"x": (1, 4)}, lambda mb, x: mb.silu(x=x), dtype=np.float16)
    save_program(folder / "decoder.mlpackage", {"x": (1, 4)}, lambda mb, x: mb.silu(x=x), dtype=np.float16)
    audit = audit_thing(tmp_path, device=None, compute_units=None)
    assert [item["package"] for item in audit["packages"]] == ["decoder.mlpackage", "denoiser.mlpackage"]
    assert (audit["device"], audit["chip"], audit["compute_units"]) == ("iphone12", "A14 Bionic", "cpu_and_gpu")
    assert audit["packages"][0]["summary"]["home_unit"] == "gpu"


def test_whole_network_has_the_arithmetic_of_its_description(exported_cross: Exported) -> None:
    # That for the GPU: the Neural Engine's sums across frames are not products of matrices.
    program = read_program(exported_cross.package)
    found = sum(fact.flops for fact in operation_facts(program))
    described = get("tiny").workload(exported_cross.denoiser.architecture, SCENARIO)
    assert found == pytest.approx(described.flops, rel=0.01)
    assert weight_bytes(program).decompressed == pytest.approx(described.weight_bytes, rel=0.01)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["audit", *arguments])


def test_command_and_its_exit_codes(tmp_path: Path) -> None:
    path = save_program(
        tmp_path / "p.mlpackage",
        {"x": (1, 64)},
        lambda mb, x: mb.linear(x=x, weight=np.ones((64, 64), dtype=np.float16)),
        dtype=np.float16,
    )
    done = run(str(path), "--json", "--device", "iphone15-pro")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["device"] == "iphone15_pro"
    assert "one segment" not in run(str(path)).stdout
    unknown = run(str(path), "--device", "iphone99")
    assert (unknown.exit_code, "is not known" in unknown.stderr) == (2, True)
    (path / WEIGHT_FILE).unlink()
    missing = run(str(path))
    assert (missing.exit_code, "no readable weight.bin" in missing.stderr) == (3, True)
    empty = run(str(tmp_path / "none"))
    assert (empty.exit_code, "does not exist" in empty.stderr) == (3, True)
    (tmp_path / "folder").mkdir()
    without = run(str(tmp_path / "folder"))
    assert (without.exit_code, "is no .mlpackage and holds none" in without.stderr) == (3, True)


def test_foreign_and_newer_packages_are_named(tmp_path: Path) -> None:
    path = save_program(tmp_path / "p.mlpackage", {"x": (1, 4)}, lambda mb, x: mb.silu(x=x), dtype=np.float16)
    load_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((path / MODEL_FILE).read_bytes())
    model.specificationVersion = 99
    (path / MODEL_FILE).write_bytes(model.SerializeToString())
    newer = run(str(path))
    assert (newer.exit_code, "specification 99" in newer.stderr) == (6, True)
    network = Model_pb2.Model(specificationVersion=4)
    network.neuralNetwork.SetInParent()
    (path / MODEL_FILE).write_bytes(network.SerializeToString())
    old = run(str(path))
    assert (old.exit_code, "needs an ML Program" in old.stderr) == (3, True)
