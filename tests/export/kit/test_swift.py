"""The Swift runner as far as Linux can check it: its syntax, and that both sides mean the same keys."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from latency_models.importers.kits import KitManifest, record_schema, record_schema_text
from nas.core.profile import THERMAL_STATES, FailureStage
from nas.pipeline.kit import _SETTINGS
from tests.export.kit.swift_sources import LIBRARY, ROOT, faults, string_literals, structs

SOURCES = sorted(ROOT.rglob("*.swift"))
# Keys of the schema that this runner has nothing to write into; other runners may.
NOT_WRITTEN = {
    "DeviceRecord": {"outputs_check"},
    "Host": {"commit"},
    "Phone": {"entitlement"},
    "Model": {"macs", "weight_scheme", "function", "chunk"},
    "Configuration": {"optimization_hints"},
    "Load": {"is_cached"},
    "PlanRow": {"path", "reason"},
    "Failure": {"limit_ms"},
}
IN_SCHEMA = {"Failure": "Error"}  # Swift has an Error of its own


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_have_no_syntax_error(path: Any) -> None:
    assert faults(path.read_bytes()) == []


@pytest.mark.parametrize(
    ("good", "broken"),
    [
        (b"guard schema ==", b"guard schema = ="),
        (b"throw KitError.unknownSchema(schema)", b"throw KitError.(schema"),
        (b"    let kit: String\n", b"let kit:\n"),
    ],
)
def test_broken_sources_are_found(good: bytes, broken: bytes) -> None:
    source = (LIBRARY / "Manifest.swift").read_bytes()
    assert good in source
    assert faults(source.replace(good, broken, 1))
    assert faults(source.removesuffix(b"}\n"))


def test_the_shipped_schema_is_that_of_the_importer() -> None:
    assert json.loads(record_schema_text()) == record_schema()


def test_the_runner_writes_exactly_the_keys_of_the_schema() -> None:
    schema = record_schema()
    kinds: dict[str, Any] = {**schema["$defs"], "DeviceRecord": schema}
    written = structs((LIBRARY / "DeviceRecord.swift").read_bytes())
    assert {IN_SCHEMA.get(name, name) for name in written} == set(kinds) - {"Outputs"}
    for name, properties in written.items():
        expected = set(kinds[IN_SCHEMA.get(name, name)]["properties"])
        assert {one.key for one in properties} == expected - NOT_WRITTEN.get(name, set()), name


def test_what_the_importer_needs_is_always_written() -> None:
    schema = record_schema()
    kinds: dict[str, Any] = {**schema["$defs"], "DeviceRecord": schema}
    for name, properties in structs((LIBRARY / "DeviceRecord.swift").read_bytes()).items():
        always = {one.key for one in properties if not one.optional}
        assert set(kinds[IN_SCHEMA.get(name, name)].get("required", ())) <= always, name


def test_types_of_keys_agree() -> None:
    schema = record_schema()
    kinds: dict[str, Any] = {**schema["$defs"], "DeviceRecord": schema}
    names = {"String": "string", "Int": "integer", "Double": "number", "UInt64": "number", "Bool": "boolean"}
    for name, properties in structs((LIBRARY / "DeviceRecord.swift").read_bytes()).items():
        for one in properties:
            allowed = json.dumps(kinds[IN_SCHEMA.get(name, name)]["properties"][one.key])
            wanted = names.get(one.type_name, f"/{IN_SCHEMA.get(one.type_name, one.type_name)}")
            assert f'{wanted}"' in allowed, f"{name}.{one.key}"


def test_the_manifest_has_what_the_runner_reads() -> None:
    kinds = TypeAdapter(KitManifest).json_schema()
    read = structs((LIBRARY / "Manifest.swift").read_bytes())
    schema = {"Manifest": kinds, "Job": kinds["$defs"]["KitJob"], "Measuring": kinds["$defs"]["Measuring"]}
    assert set(read) == set(schema)
    for name, properties in read.items():
        known = {"schema"} | set(schema[name]["properties"])
        assert {one.key for one in properties} <= known, name
    assert {one.key for one in read["Measuring"]} == set(schema["Measuring"]["properties"])


def test_names_that_both_sides_write_are_the_same() -> None:
    measurement = string_literals((LIBRARY / "JobMeasurement.swift").read_bytes())
    assert {*_SETTINGS.values()} - {"all"} <= measurement  # every other setting is Core ML's default, all
    ends = string_literals((LIBRARY / "RecordsFile.swift").read_bytes())
    assert {"compile", "load", "predict"} <= measurement & {*get_args(FailureStage)}
    assert {"predict", "out_of_memory"} <= ends & {*get_args(FailureStage)}
    assert string_literals((LIBRARY / "Machine.swift").read_bytes()) >= set(THERMAL_STATES)
    assert "nas/device_record/1" in string_literals((LIBRARY / "DeviceRecord.swift").read_bytes())
    assert "nas/kit/1" in string_literals((LIBRARY / "Manifest.swift").read_bytes())
