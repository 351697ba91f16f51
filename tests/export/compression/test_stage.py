"""What the export stage makes of ``export.compression``."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from nas.config.compression import CompressionSection
from nas.config.run import WeightsSection
from nas.core.errors import ConfigError
from nas.core.files import read_json, sha256_path
from nas.export.compression import noise_inputs
from nas.export.mil import execute, read_program
from nas.export.verification import Reference, read_reference, reference_path, write_reference
from nas.pipeline.compress import compression_of, costed_text, settings_of

if TYPE_CHECKING:
    from pathlib import Path


def test_auto_makes_the_package_that_was_costed(package: Path, tmp_path: Path) -> None:
    own = tmp_path / "denoiser.mlpackage"
    shutil.copytree(package, own)
    inputs = noise_inputs(read_program(own)).inputs
    trained = execute(read_program(own), inputs)
    write_reference(reference_path(own), Reference(packages=(sha256_path(own),), inputs=inputs, trained=trained))
    compress = compression_of(CompressionSection(), WeightsSection(bits=6, form="palettised"), cache=tmp_path / "cache")
    assert compress is not None
    made = compress(own)
    record = read_json(tmp_path / "compression.json")
    reference = read_reference(reference_path(own))
    assert record["schema"] == "nas/compression/1"
    assert {layer["form"] for layer in record["layers"]} == {"palettize 6"}
    assert reference.packages == (sha256_path(own),) == (record["sha256"],)
    psnr = min(row["psnr_db"] for row in record["errors"] if row["precision"] == "float32")
    assert reference.min_psnr_db == pytest.approx(psnr - 1.0)
    assert made.weights == "5 weights palettize 6"
    assert f"as it is: {made.weights}" in made.section
    assert "| result | float16 | source network |" in made.section


@pytest.mark.parametrize(
    ("form", "bits", "expected"),
    [
        ("palettised", 4, ("palettize", 4, None)),
        ("linear", 8, ("linear", 8, None)),
        ("blockwise", 4, ("linear", 4, 32)),
        ("sparse", 8, ("sparse", 8, None)),
    ],
)
def test_forms_of_a_prediction_have_a_form_of_core_ml(form: str, bits: int, expected: tuple[str, int, int]) -> None:
    settings = settings_of(CompressionSection(), WeightsSection(bits=bits, form=form))  # type: ignore[arg-type]  # one of them
    assert settings is not None
    assert (settings.type, settings.bits, settings.block_size) == expected


def test_sixteen_bits_and_none_leave_the_package_as_it_is() -> None:
    assert settings_of(CompressionSection(), None) is None
    assert settings_of(CompressionSection(), WeightsSection()) is None
    assert settings_of(CompressionSection(type="none"), WeightsSection(bits=4, form="palettised")) is None


@pytest.mark.parametrize(
    ("section", "weights", "expected"),
    [
        ({}, {"bits": 4, "form": "palettised"}, ""),
        ({"type": "none"}, {}, ""),
        ({"type": "none"}, {"bits": 4, "form": "palettised"}, "palettize 4"),
        ({"type": "linear", "bits": 8}, {}, "float16"),
        ({"type": "linear", "bits": 4, "block_size": 32}, {"bits": 4, "form": "blockwise"}, ""),
        ({"type": "linear", "bits": 4}, {"bits": 4, "form": "blockwise"}, "linear 4 per 32 inputs"),
    ],
)
def test_card_says_where_the_cost_is_of_other_weights(
    section: dict[str, object], weights: dict[str, object], expected: str
) -> None:
    found = costed_text(CompressionSection.model_validate(section), WeightsSection.model_validate(weights))
    assert found == expected


def test_linear_weights_of_six_bits_have_no_form() -> None:
    with pytest.raises(ConfigError, match="'linear' takes 4, 8, got 6"):
        settings_of(CompressionSection(), WeightsSection(bits=6, form="linear"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "palettize"}, "'palettize' needs bits, one of 1, 2, 3, 4, 6, 8, got none"),
        ({"type": "linear", "bits": 6}, "'linear' needs bits, one of 4, 8, got 6"),
        ({"bits": 4}, "'auto' has none of its own"),
        ({"type": "mixed"}, "package_mb goes with type 'mixed'"),
        ({"type": "palettize", "bits": 4, "package_mb": 3.0}, "package_mb goes with type 'mixed'"),
        ({"type": "linear", "bits": 8, "group_size": 16}, "group_size is for"),
        ({"type": "palettize", "bits": 4, "block_size": 32}, "block_size is for 'linear'"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompressionSection.model_validate(settings)
