"""What the YAML's schema cannot see is found before a run begins, all of it at once and with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.config.run import load_run_document
from nas.core.errors import ConfigError
from nas.pipeline.checks import check_run
from nas.pipeline.context import find_run, open_run

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: host-cpu}
"""


def found(folder: Path, text: str) -> dict[str, tuple[int | None, str]]:
    """Return line and message of every fault, by path."""
    (folder / "run.yaml").write_text(text.replace("DIRECTORY", str(folder / "runs")))
    try:
        check_run(*load_run_document(folder / "run.yaml"))
    except ConfigError as error:
        return {problem.path: (problem.line, problem.message) for problem in error.problems}
    return {}


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("host-cpu", "host-cup").replace("height: 32, width: 32", "height: 30, width: 33")
    text += "budget: {coverage: 0.95}\nprofile: {networks: 18}\ncalibrate: {}\nexport: {image_weights: none.st}\n"
    faults = found(tmp_path, text)
    assert {path: line for path, (line, _) in faults.items()} == {
        "scenario.height": 3,
        "scenario.width": 3,
        "device.name": 4,
        "profile.networks": 6,
        "export.image_weights": 8,
    }
    assert faults["device.name"][1].endswith("did you mean 'host-cpu'?")
    assert "iphone16_pro_max" in faults["device.name"][1]
    assert faults["profile.networks"][1].startswith("must be at least 19 ")


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (("name: tiny", "name: tinny"), "space.name", "did you mean 'tiny'"),
        (("name: tiny", "name: tiny, version: 7"), "space.version", "got 7"),
        (("frames: 8", "frames: 1"), "scenario.frames", "must be at least 2"),
        (("frames: 8", "frames: 9999"), "scenario.frames", "at most"),
    ],
)
def test_spaces_and_frames(tmp_path: Path, change: tuple[str, str], path: str, message: str) -> None:
    faults = found(tmp_path, GOOD.replace(*change))
    assert list(faults) == [path]
    assert message in faults[path][1]


@pytest.mark.parametrize("sections", ["search: {}\n", "train: {}\n"])
def test_toy_training_is_made_for_its_own_clips(tmp_path: Path, sections: str) -> None:
    assert found(tmp_path, GOOD + sections) == {}
    larger = GOOD.replace("height: 32", "height: 64")
    assert "8 frames of 32 x 32 px" in found(tmp_path, larger + sections)["scenario"][1]
    assert found(tmp_path, larger) == {}


def test_other_sizes_go_without_toy_training(tmp_path: Path) -> None:
    text = GOOD.replace("height: 32", "height: 64") + "search: {}\nquality: {type: temporal_capacity}\n"
    assert found(tmp_path, text) == {}


@pytest.mark.parametrize("opening", [open_run, find_run])
def test_a_faulty_run_writes_nothing(tmp_path: Path, opening: object) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD.replace("DIRECTORY", str(tmp_path / "runs")).replace("host-cpu", "host-cup"))
    assert callable(opening)
    with pytest.raises(ConfigError, match=r"4:\d+\s+device\.name"):
        opening(str(path))
    assert list(tmp_path.iterdir()) == [path]


PHONE = GOOD.replace("float32", "float16").replace("host-cpu", "iphone16_pro_max")


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ("weights: {bits: 4, form: palettized}", "device.weights.form", "plain, palettised, linear, blockwise, sparse"),
        ("weights: {bits: 8}", "device.weights", "need a form, one of palettised, linear, blockwise, sparse"),
        ("weights: {form: linear}", "device.weights", "have bits 8, 6 or 4, got 16"),
        ("weights: {bits: 5, form: linear}", "device.weights.bits", "must be one of 16, 8, 6, 4"),
        ("lowerings: {neural_engine: split}", "device.lowerings.neural_engine", "split_einsum, split_einsum_v2"),
        ("lowerings: {neural_engine: torch}", "device.lowerings.neural_engine", "unknown lowering 'torch'"),
        ("lowerings: {cuda: decomposed}", "device.lowerings.cuda", "known are"),
        ("lowerings: {ane: split_einsum}", "device.lowerings.ane", "neural_engine"),
    ],
)
def test_forms_of_weights_and_lowerings_are_named_where_one_is_unknown(
    tmp_path: Path, settings: str, path: str, message: str
) -> None:
    faults = found(tmp_path, PHONE.replace("{name: iphone16_pro_max}", f"{{name: iphone16_pro_max, {settings}}}"))
    assert [name for name in faults if name.startswith(path)]
    assert any(message in text for _, text in faults.values())
    assert all(line == 4 for line, _ in faults.values())


@pytest.mark.parametrize("settings", ["weights: {bits: 4, form: palettised}", "lowerings: {cpu: decomposed}"])
def test_hosts_run_networks_as_they_are(tmp_path: Path, settings: str) -> None:
    (fault,) = found(tmp_path, GOOD.replace("{name: host-cpu}", f"{{name: host-cpu, {settings}}}")).values()
    assert "this host runs the networks in torch" in fault[1]


def test_packages_for_a_phone_are_converted_as_asked(tmp_path: Path) -> None:
    settings = "weights: {bits: 6, form: palettised}, lowerings: {neural_engine: split_einsum_v2, gpu: decomposed}"
    text = PHONE.replace("{name: iphone16_pro_max}", f"{{name: iphone16_pro_max, {settings}}}")
    assert found(tmp_path, text) == {}


@pytest.mark.parametrize(
    ("budget", "path", "message"),
    [
        ("{runs_on: gpu}", "budget.runs_on", "'gpu' is none of the units that scenario.compute_units 'cpu_and_ne'"),
        ("{runs_on: [neural_engine, cpu]}", None, ""),
        ("{runs_on: cpu}", "budget.runs_on", "leaves out 'neural_engine', where scenario.compute_units 'cpu_and_ne'"),
        ("{runs_on: neural_engine}", None, ""),
        ("{runs_on: neural_engin}", "budget.runs_on.0", "must be one of cpu, gpu, neural_engine, cuda, unknown"),
        ("{runs_on: []}", "budget.runs_on", "a list of at least one of them, got []"),
        ("{probability: 0.95}", "budget.probability", "needs a limit that may be missed"),
        ("{probability: 0.4, latency_ms: 5}", "budget.probability", "must be at least 0.5, got 0.4"),
        ("{probability: 1, latency_ms: 5}", "budget.probability", "must be below 1"),
        ("{package_mb: 0}", "budget.package_mb", "must be above 0"),
        ("{package_mb: 500, probability: 0.9, peak_memory_mb: 900}", None, ""),
    ],
)
def test_limits_are_checked_with_their_line(tmp_path: Path, budget: str, path: str | None, message: str) -> None:
    faults = found(tmp_path, GOOD.replace("host-cpu", "iphone15_pro") + f"budget: {budget}\n")
    assert list(faults) == ([] if path is None else [path])
    if path is not None:
        assert faults[path][0] == 5
        assert message in faults[path][1]


@pytest.mark.parametrize(
    ("executor", "path", "message"),
    [
        ("{type: ray, workers: 2, cpus_per_task: 3}", "search.executor.cpus_per_task", "2 processors here, got 3"),
        ("{type: ray, workers: 2, cpus_per_task: 3, address: auto}", None, ""),
        ("{type: ray, cpus_per_task: 0}", "search.executor", "got none of both"),
        ("{type: ray, cpus_per_task: 0, gpus_per_task: 0.25}", None, ""),
        ("{type: ray, gpus_per_task: 1.5}", "search.executor", "must be a whole number above 1, got 1.5"),
        ("{type: ray, memory_mb: 0}", "search.executor.memory_mb", "must be above 0"),
        ("{type: ray, grows: true}", "search.executor.grows", "give its address"),
        ("{type: ray, retries: -1}", "search.executor.retries", "must be at least 0"),
    ],
)
def test_reservations_are_checked_with_their_line(
    tmp_path: Path, executor: str, path: str | None, message: str
) -> None:
    faults = found(tmp_path, GOOD + f"search:\n  executor: {executor}\n")
    assert list(faults) == ([] if path is None else [path])
    if path is not None:
        assert faults[path][0] == 6
        assert message in faults[path][1]


def test_reservation_of_a_level_is_checked_with_its_line(tmp_path: Path) -> None:
    levels = "quality:\n  type: levels\n  levels:\n"
    levels += "    - {type: temporal_capacity, price: 0.1, resources: {cpus: 2}}\n"
    levels += "    - {type: short_training, resources: {cpus: 4, gpus: 1}}\n"
    faults = found(tmp_path, GOOD + "search: {engine: {type: random}, executor: {type: ray, workers: 2}}\n" + levels)
    assert faults == {
        "quality.levels.1.resources.cpus": (10, "must be at most search.executor.workers, 2 processors here, got 4")
    }


def test_evaluations_of_zero_are_refused_with_their_line(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD + "search:\n  evaluations: 0\n") == {
        "search.evaluations": (6, "must be at least 1, got 0")
    }


STORED = GOOD.replace("{name: host-cpu}", "{name: iphone16_pro_max, WEIGHTS}")


@pytest.mark.parametrize(
    ("weights", "export", "path", "line", "message"),
    [
        ("threads: 1", "{chunks: 2, compression: {type: palettize, bits: 4}}", "export.chunks", 5, "not cut in two"),
        ("weights: {bits: 4, form: palettised}", "{chunks: 2}", "export.chunks", 5, "device.weights of fewer than 16"),
        ("weights: {bits: 6, form: linear}", "{}", "device.weights", 4, "'linear' weights in 4 or 8 bits, got 6"),
        ("weights: {bits: 6, form: blockwise}", "{}", "device.weights", 4, "'blockwise' weights in 4 or 8 bits, got 6"),
    ],
)
def test_compression_that_cannot_be(
    tmp_path: Path, weights: str, export: str, path: str, line: int, message: str
) -> None:
    faults = found(tmp_path, STORED.replace("WEIGHTS", weights) + f"export: {export}\n")
    assert {name: place for name, (place, _) in faults.items()} == {path: line}
    assert message in faults[path][1]


def test_bits_of_a_searched_scenario_that_core_ml_lacks(tmp_path: Path) -> None:
    text = STORED.replace("WEIGHTS", "weights: {bits: 8, form: linear}")
    text += "search: {evaluations: 8, scenario: {weight_bits: [8, 6], worth: {weight_bits: [1, 0.5]}}}\nexport: {}\n"
    faults = found(tmp_path, text)
    assert "in 4 or 8 bits, got 6" in faults["search.scenario.weight_bits"][1]
    assert "search.scenario.weight_bits" not in found(tmp_path, text.replace("form: linear", "form: palettised"))


@pytest.mark.parametrize(
    ("weights", "export"),
    [
        ("weights: {bits: 6, form: linear}", "{compression: {type: none}, chunks: 2}"),
        ("weights: {bits: 6, form: palettised}", "{}"),
        ("threads: 1", "{chunks: 2}"),
    ],
)
def test_compression_that_can_be(tmp_path: Path, weights: str, export: str) -> None:
    assert found(tmp_path, STORED.replace("WEIGHTS", weights) + f"export: {export}\n") == {}
