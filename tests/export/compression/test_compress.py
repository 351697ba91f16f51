"""Compressed packages against coremltools' own decompression, plans against what they were asked for."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.optimize
import torch

from nas.cli.main import main
from nas.core.errors import BudgetError, ConfigError, InputError, VerificationError
from nas.export.compression import CompressionSettings, compress_package, noise_inputs, read_inputs
from nas.export.compression.cache import Cache
from nas.export.compression.candidates import as_read
from nas.export.compression.compress import stored_bytes
from nas.export.compression.forms import PLAIN, Form
from nas.export.compression.layers import measure_layers
from nas.export.compression.weights import compressible
from nas.export.mil import execute, read_program
from nas.export.shims import load_coremltools
from tests.export.mil.building import unsaved_model

from .conftest import SHAPES, network

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.compression import CompressionRecord

FORMS: dict[str, dict[str, Any]] = {
    "palettize 4": {"type": "palettize", "bits": 4},
    "palettize 6 per 8 channels": {"type": "palettize", "bits": 6, "group_size": 8},
    "linear 8": {"type": "linear", "bits": 8},
    "linear 4 per 16 inputs": {"type": "linear", "bits": 4, "block_size": 16},
    "sparse 50%": {"type": "sparse", "bits": 8},
}


def compressed(package: Path, target: Path, **settings: Any) -> CompressionRecord:
    return compress_package(package, target, CompressionSettings(**settings), cache=target.parent / "cache")


@pytest.mark.parametrize("form", FORMS)
def test_package_computes_what_coremltools_decompresses(form: str, package: Path, tmp_path: Path) -> None:
    record = compressed(package, tmp_path / "small.mlpackage", **FORMS[form])
    ct = load_coremltools()
    small = ct.models.MLModel(str(tmp_path / "small.mlpackage"), skip_model_load=True)
    ct.optimize.coreml.decompress_weights(small).save(str(tmp_path / "dense.mlpackage"))
    inputs = noise_inputs(read_program(package)).inputs
    dense = execute(read_program(tmp_path / "dense.mlpackage"), inputs)["result"]
    expected = execute(read_program(package), inputs)["result"]
    found = next(row for row in record.errors if row.precision == "float32")
    by_hand = float((dense - expected).norm() / expected.norm())
    assert {layer.form for layer in record.layers} == {form}
    assert found.relative_rms == pytest.approx(by_hand, rel=2e-2)  # decompression rounds to float16 once more


@pytest.mark.parametrize("form", FORMS)
def test_package_has_the_bytes_that_were_reckoned(form: str, package: Path, tmp_path: Path) -> None:
    record = compressed(package, tmp_path / "small.mlpackage", **FORMS[form])
    plain = sum(stored_bytes(weight, PLAIN) for weight in compressible(read_program(package)))
    reckoned = record.source_bytes - plain + sum(layer.num_bytes for layer in record.layers)
    assert record.package_bytes == pytest.approx(reckoned, abs=100 * len(record.layers))


def test_candidates_are_the_values_that_the_package_holds(package: Path, tmp_path: Path) -> None:
    record = compressed(package, tmp_path / "small.mlpackage", type="mixed", package_mb=0.024)
    weights = compressible(read_program(package))
    saved = read_program(tmp_path / "small.mlpackage").function()
    wanted = {layer.name: layer.form for layer in record.layers}
    forms = {form.text: form for form in (PLAIN, *(Form(kind="palettize", bits=bits) for bits in (1, 2, 3, 4, 6, 8)))}
    stored = [operation for operation in saved.operations if operation.type == "constexpr_lut_to_dense"]
    assert len(stored) == sum(form.startswith("palettize") for form in wanted.values()) > 0
    for operation in stored:
        weight = next(item for item in weights if operation.outputs[0].name.startswith(item.name))
        tables = Cache(None).tables(weight, forms[wanted[weight.name]])
        (table,) = operation.inputs["lut"]
        np.testing.assert_array_equal(np.asarray(table.array()).reshape(tables.shape), tables)  # type: ignore[union-attr]  # a constant


def test_mixed_plan_fits_and_beats_the_uniform_one_of_its_size(package: Path, tmp_path: Path) -> None:
    uniform = compressed(package, tmp_path / "uniform.mlpackage", type="palettize", bits=4)
    mixed = compressed(
        package,
        tmp_path / "mixed.mlpackage",
        type="mixed",
        package_mb=uniform.package_bytes / 1e6,
        sensitivity="output",
    )
    assert mixed.package_bytes <= uniform.package_bytes
    assert mixed.errors[0].relative_rms < 0.9 * uniform.errors[0].relative_rms
    branch = next(layer for layer in mixed.layers if layer.shape == (32, 32, 3, 3))
    assert branch.gain is not None
    assert branch.gain < 0.05


def test_solver_that_writes_leaves_one_json_document(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    solve = scipy.optimize.milp

    def talkative(*arguments: Any, **options: Any) -> Any:
        os.write(1, b"line of the solver\n")
        return solve(*arguments, **options)

    monkeypatch.setattr(scipy.optimize, "milp", talkative)
    target = tmp_path / "small.mlpackage"
    main(
        ["compress", str(package), "--output", str(target), "--type", "mixed", "--package-mb", "0.024", "--json"],
        standalone_mode=False,
    )
    assert json.loads(capfd.readouterr().out)["package_bytes"] <= 24_000


def test_predicted_noise_orders_plans_as_their_measured_error_does(package: Path, tmp_path: Path) -> None:
    records = [
        compressed(package, tmp_path / f"{size}.mlpackage", type="mixed", package_mb=size)
        for size in (0.019, 0.022, 0.027, 0.034)
    ]
    predicted = [record.predicted_noise for record in records]
    measured = [record.errors[0].relative_rms ** 2 for record in records]
    assert predicted == sorted(predicted, reverse=True)
    assert measured == sorted(measured, reverse=True)
    assert all(0.5 < one / (other or 1) < 2 for one, other in zip(measured, predicted, strict=True))


def test_killed_run_goes_on_with_what_it_has_measured(package: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class KillAfterTwo:
        def update(self, done: int, _total: int, _message: str = "") -> None:
            if done == 2:
                raise Killed

    settings = CompressionSettings(type="palettize", bits=4)
    with pytest.raises(Killed):
        compress_package(package, tmp_path / "a.mlpackage", settings, cache=tmp_path / "cache", progress=KillAfterTwo())
    assert not (tmp_path / "a.mlpackage").exists()
    record = compressed(package, tmp_path / "a.mlpackage", type="palettize", bits=4)
    assert record.tables_fitted == len(record.layers) - 2
    again = compressed(package, tmp_path / "b.mlpackage", type="palettize", bits=4)
    assert again.tables_fitted == 0
    assert [layer.noise for layer in again.layers] == [layer.noise for layer in record.layers]
    fresh = compress_package(package, tmp_path / "c.mlpackage", settings)
    assert [layer.noise for layer in fresh.layers] == [layer.noise for layer in record.layers]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_damaged_table_in_the_cache_is_fitted_again(package: Path, tmp_path: Path) -> None:
    compressed(package, tmp_path / "a.mlpackage", type="palettize", bits=2)
    damaged = next(iter((tmp_path / "cache" / "tables").iterdir()))
    damaged.write_bytes(b"nothing")
    record = compressed(package, tmp_path / "b.mlpackage", type="palettize", bits=2)
    assert record.tables_fitted == 1


def test_noise_of_a_layer_is_that_of_its_output(package: Path, tmp_path: Path) -> None:
    program = read_program(package)
    weight = compressible(program)[0]
    form = Form(kind="linear", bits=8)
    inputs = noise_inputs(program).inputs
    errors = Cache(tmp_path).errors("package", "inputs")
    measure_layers(program, inputs, {weight.name: (form,)}, [weight], cache=Cache(None), errors=errors)
    other = as_read(weight, form, Cache(None))
    expected = torch.nn.functional.conv2d(inputs["x"], torch.from_numpy(weight.values().astype(np.float32)), padding=1)
    found = torch.nn.functional.conv2d(inputs["x"], other, padding=1)
    by_hand = float((found - expected).square().sum() / expected.square().sum())
    assert errors.known(weight.name, form) == pytest.approx(by_hand, rel=1e-3)


def test_recorded_outputs_are_a_second_reference(package: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    program = read_program(package)
    inputs = noise_inputs(program).inputs
    outputs = {"result": execute(program, inputs)["result"] + 1.0}
    save_file({**inputs, **outputs}, tmp_path / "recorded.safetensors")
    record = compress_package(
        package,
        tmp_path / "small.mlpackage",
        CompressionSettings(type="linear", bits=8),
        recorded=read_inputs(tmp_path / "recorded.safetensors", program),
    )
    far = [row.relative_rms for row in record.errors if row.reference == "source network"]
    near = [row.relative_rms for row in record.errors if row.reference == "float16 package"]
    assert len(far) == len(near) == 2
    assert min(far) > 5 * max(near)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"type": "palettize", "bits": 5}, ConfigError, "takes 1, 2, 3, 4, 6, 8, got 5"),
        ({"type": "linear"}, ConfigError, "'linear' needs one of 4, 8"),
        ({"type": "mixed"}, ConfigError, "'mixed' needs the size"),
        ({"type": "mixed", "package_mb": float("nan")}, ConfigError, "package_mb: must be a finite number, got nan"),
        ({"type": "mixed", "package_mb": -1.0}, ConfigError, "package_mb: must be above 0, got -1.0"),
        (
            {"type": "sparse", "bits": 8, "min_psnr_db": float("nan")},
            ConfigError,
            "min_psnr_db: must be a finite number",
        ),
        ({"type": "mixed", "bits": 4, "package_mb": 1.0}, ConfigError, "chooses them layer by layer"),
        ({"type": "palettize", "bits": 4, "package_mb": 1.0}, ConfigError, "follows from its bits"),
        ({"type": "linear", "bits": 8, "group_size": 4}, ConfigError, "group_size: is for look-up tables"),
        ({"type": "palettize", "bits": 4, "block_size": 4}, ConfigError, "block_size: is for 'linear'"),
        ({"type": "mixed", "package_mb": 0.001}, BudgetError, r"smallest package of these forms takes 0\.01\d MB"),
        ({"type": "palettize", "bits": 1, "min_psnr_db": 90.0}, VerificationError, "asked for at least 90 dB"),
        ({"type": "palettize", "bits": 4, "weight_threshold": 10**6}, InputError, "no float16 weight of more than"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: dict[str, Any], kind: type[Exception], message: str, package: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        compressed(package, tmp_path / "small.mlpackage", **settings)
    assert not (tmp_path / "small.mlpackage").exists()


def test_compressed_package_is_not_compressed_again(package: Path, tmp_path: Path) -> None:
    compressed(package, tmp_path / "small.mlpackage", type="linear", bits=8)
    with pytest.raises(InputError, match="is compressed already: 5 weights"):
        compressed(tmp_path / "small.mlpackage", tmp_path / "smaller.mlpackage", type="linear", bits=8)
    with pytest.raises(ConfigError, match="exists already and is not overwritten"):
        compressed(package, tmp_path / "small.mlpackage", type="linear", bits=8)
    with pytest.raises(ConfigError, match=r"named \*\.mlpackage"):
        compressed(package, tmp_path / "small.bin", type="linear", bits=8)


def test_package_for_ios_16_has_no_groups(tmp_path: Path) -> None:
    path = tmp_path / "old.mlpackage"
    unsaved_model(SHAPES, network, dtype=np.float16, target="iOS16").save(str(path))
    with pytest.raises(ConfigError, match="palettize 4 per 8 channels needs iOS 18"):
        compressed(path, tmp_path / "small.mlpackage", type="palettize", bits=4, group_size=8)
    record = compressed(path, tmp_path / "small.mlpackage", type="palettize", bits=4)
    assert record.package_bytes < record.source_bytes / 2


def test_package_of_several_functions_is_refused(package: Path, tmp_path: Path) -> None:
    ct = load_coremltools()
    functions = ct.utils.MultiFunctionDescriptor()
    functions.add_function(str(package), src_function_name="main", target_function_name="small")
    functions.add_function(str(package), src_function_name="main", target_function_name="large")
    functions.default_function_name = "small"
    ct.utils.save_multifunction(functions, str(tmp_path / "both.mlpackage"))
    with pytest.raises(InputError, match="has the functions large, small"):
        compressed(tmp_path / "both.mlpackage", tmp_path / "small.mlpackage", type="linear", bits=8)
