from __future__ import annotations

import shutil
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from nas.core.errors import InputError, NasError, UnavailableError, VerificationError
from nas.export.mil import activation_peak, execute, first_difference, missing_operations, read_program
from nas.export.mil.executor import steps
from nas.export.mil.values import Constant, unpack_bits
from nas.export.package import MODEL_FILE, NEWEST_SPECIFICATION, WEIGHT_FILE

from .building import built, save_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = [np.random.default_rng(layer).standard_normal((16, 16)).astype(np.float16) for layer in range(4)]
X = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).half().float()


def layers(mb: Any, x: Any) -> Any:
    for layer, weight in enumerate(WEIGHTS):
        x = mb.tanh(x=mb.linear(x=x, weight=weight, name=f"layer_{layer}"), name=f"tanh_{layer}")
    return x


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "layers.mlpackage"
    return save_program(path, {"x": (3, 16)}, layers, dtype=np.float16)


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "copy.mlpackage")


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    """Change the protobuf of a package in place."""
    from coremltools.proto import Model_pb2

    message = Model_pb2.Model()
    message.ParseFromString((path / MODEL_FILE).read_bytes())
    edit(message)
    (path / MODEL_FILE).write_bytes(message.SerializeToString())
    return path


def operations(message: Any) -> Any:
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_float32_computes_on_the_weights_as_stored(package: Path) -> None:
    expected = X.numpy()
    for weight in WEIGHTS:
        expected = np.tanh(expected @ weight.astype(np.float32).T)
    (found,) = execute(read_program(package), {"x": X}).values()
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_float16_rounds_the_result_of_every_operation(package: Path) -> None:
    expected = X
    for weight in WEIGHTS:
        product = (expected @ torch.from_numpy(weight).float().T).half().float()
        expected = torch.tanh(product).half().float()
    (found,) = execute(read_program(package), {"x": X}, precision="float16").values()
    assert torch.equal(found, expected)


def test_float16_overflows_where_float32_does_not(tmp_path: Path) -> None:
    program = built(tmp_path / "p.mlpackage", {"x": (2,)}, lambda mb, x: mb.square(x=x, name="y"), dtype=np.float16)
    inputs = {"x": torch.tensor([200.0, 300.0])}
    assert execute(program, inputs)["y"].tolist() == [40000.0, 90000.0]
    assert execute(program, inputs, precision="float16")["y"].tolist() == [40000.0, float("inf")]


def test_a_result_is_freed_after_the_last_operation_that_reads_it(package: Path) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    alive = []
    for step in steps(read_program(package), {"x": X}):
        kept.append(weakref.ref(step.results[0]))
        alive.append(sum(item() is not None for item in kept))
    assert alive == [1] + [2] * (2 * len(WEIGHTS) - 1)  # what is read and what is made


def test_weights_are_mapped_not_read(package: Path) -> None:
    constants = [item.value for item in read_program(package).function().operations if item.type == "const"]
    stored = [item for item in constants if isinstance(item, Constant) and item.in_file]
    assert len(stored) >= len(WEIGHTS)
    assert all(isinstance(item.data, np.memmap) for item in stored)


def test_one_altered_weight_byte_is_found_at_the_operation_that_reads_it(package: Path, copy: Path) -> None:
    file = copy / WEIGHT_FILE
    at = file.read_bytes().index(WEIGHTS[2].tobytes())
    flip(file, at + 77, 6)
    found = first_difference(read_program(package), read_program(copy), {"x": X})
    assert found is not None
    assert "linear 'layer_2'" in found.location
    assert found.reason == "values differ"
    assert found.error is not None
    assert found.error.max_absolute > 0.01


def test_equal_packages_part_nowhere(package: Path, copy: Path) -> None:
    assert first_difference(read_program(package), read_program(copy), {"x": X}, precision="float16") is None


def test_another_operation_is_a_difference_of_its_own(package: Path, tmp_path: Path) -> None:
    def other(mb: Any, x: Any) -> Any:
        return mb.relu(x=mb.linear(x=x, weight=WEIGHTS[0]))

    second = built(tmp_path / "other.mlpackage", {"x": (3, 16)}, other, dtype=np.float16)
    found = first_difference(read_program(package), second, {"x": X})
    assert found is not None
    assert "tanh 'tanh_0'" in found.location
    assert "relu" in found.reason


def test_unknown_operations_are_all_named_before_anything_is_computed(copy: Path) -> None:
    def rename(message: Any) -> None:
        for operation in operations(message):
            if operation.type == "tanh":
                operation.type = "tangent"

    program = read_program(edited(copy, rename))
    assert [item.name for item in missing_operations(program)] == [f"tanh_{layer}" for layer in range(4)]
    with pytest.raises(UnavailableError, match=r"4 operations of 1 kinds .*main #\d+ tangent 'tanh_0'") as caught:
        execute(program, {"x": X})
    assert len(caught.value.problems) == 4


def test_wrong_stated_shape_is_named_with_its_operation(copy: Path) -> None:
    def widen(message: Any) -> None:
        operation = next(item for item in operations(message) if item.type == "linear")
        operation.outputs[0].type.tensorType.dimensions[0].constant.size = 4

    with pytest.raises(VerificationError, match=r"linear 'layer_0' gives \(3, 16\) .*stated float16 \(4, 16\)"):
        execute(read_program(edited(copy, widen)), {"x": X})


def test_result_that_would_fill_the_memory_is_refused_before_it_is_made(tmp_path: Path) -> None:
    path = save_program(tmp_path / "p.mlpackage", {"x": (2, 3)}, lambda mb, x: mb.tile(x=x, reps=[2, 3]))

    def repeat(message: Any) -> None:
        for operation in operations(message):
            values = operation.attributes["val"].immediateValue.tensor.ints.values
            values[:] = [1 << 30 if value == 2 else value for value in values]

    with pytest.raises(VerificationError, match=r"tile .* gives \(2147483648, 9\), stated float32 \(4, 9\)"):
        execute(read_program(edited(path, repeat)), {"x": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": X}, "takes the inputs x, given y"),
        ({"x": X[:2]}, r"input 'x' is float16 \(3, 16\), given torch.float32 \(2, 16\)"),
        ({"x": X.int()}, "given torch.int32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(package: Path, inputs: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        execute(read_program(package), inputs)


def test_missing_weight_file_is_named(copy: Path) -> None:
    (copy / WEIGHT_FILE).unlink()
    with pytest.raises(InputError, match=r"no readable weight\.bin"):
        read_program(copy)


def test_newer_specification_is_refused(copy: Path) -> None:
    edited(copy, lambda message: setattr(message, "specificationVersion", NEWEST_SPECIFICATION + 1))
    with pytest.raises(UnavailableError, match=f"specification {NEWEST_SPECIFICATION + 1}, known here up to"):
        read_program(copy)


def test_weight_file_outside_the_package_is_not_read(copy: Path) -> None:
    def lead_out(message: Any) -> None:
        value = next(
            item.attributes["val"].blobFileValue
            for item in operations(message)
            if item.attributes["val"].WhichOneof("value") == "blobFileValue"
        )
        value.fileName = "@model_path/../../../secret.bin"

    with pytest.raises(InputError, match=r"needs one below '@model_path/'"):
        read_program(edited(copy, lead_out))


def test_result_that_nothing_makes_is_named(copy: Path) -> None:
    def cut(message: Any) -> None:
        operation = next(item for item in operations(message) if item.type == "tanh")
        operation.inputs["x"].arguments[0].name = "nowhere"

    with pytest.raises(InputError, match=r"tanh 'tanh_0' reads 'nowhere', which nothing before it makes"):
        read_program(edited(copy, cut))


def test_output_that_is_no_tensor_is_named(copy: Path) -> None:
    def text(message: Any) -> None:
        operations(message)[-1].outputs[0].type.tensorType.dataType = 2  # STRING

    with pytest.raises(InputError, match=r"function 'main' makes no tensor tanh_3 for its outputs"):
        read_program(edited(copy, text))


def test_description_and_function_must_name_the_same_inputs(copy: Path) -> None:
    with pytest.raises(InputError, match=r"names the inputs picture, its function 'main' has x"):
        read_program(edited(copy, lambda message: setattr(message.description.input[0], "name", "picture")))


def test_shape_that_no_memory_holds_is_refused_before_anything_is_computed(copy: Path) -> None:
    def widen(message: Any) -> None:
        operation = next(item for item in operations(message) if item.type == "tanh")
        operation.outputs[0].type.tensorType.dimensions[0].constant.size = 1 << 50

    with pytest.raises(UnavailableError, match=r"tanh 'tanh_0' is float16 .* GB in float32, this machine has"):
        execute(read_program(edited(copy, widen)), {"x": X})


def damaged(package: Path, folder: Path, number: int) -> Path:
    """Cut off a file of a copy (odd numbers) or flip one bit of it (even ones), at a place drawn by ``number``."""
    random = np.random.default_rng(number)
    path = shutil.copytree(package, folder / f"{number}.mlpackage")
    file = path / (MODEL_FILE if number % 3 else WEIGHT_FILE)
    size = file.stat().st_size
    if number % 2:
        file.write_bytes(file.read_bytes()[: int(random.integers(0, size))])
    else:
        flip(file, int(random.integers(0, size)), int(random.integers(0, 8)))
    return path


def result_or_error(path: Path) -> torch.Tensor | NasError:
    try:
        (found,) = execute(read_program(path), {"x": X}).values()
    except NasError as error:
        return error
    return found


def test_damage_is_an_error_or_leaves_a_tensor_of_the_stated_shape(package: Path, tmp_path: Path) -> None:
    found = [result_or_error(damaged(package, tmp_path, number)) for number in range(200)]
    messages = [item.message for item in found if isinstance(item, NasError)]
    shapes = {tuple(item.shape) for item in found if isinstance(item, torch.Tensor)}
    assert shapes == {(3, 16)}
    assert len(messages) > 100
    assert all(messages)


@pytest.mark.parametrize(("bits", "signed"), [(1, False), (2, False), (3, False), (4, True), (6, False)])
def test_bits_are_unpacked_from_the_lowest_on(bits: int, signed: bool) -> None:
    low = -(1 << bits - 1) if signed else 0
    numbers = np.random.default_rng(bits).integers(low, low + (1 << bits), 11)
    word = sum((int(number) & ((1 << bits) - 1)) << (bits * place) for place, number in enumerate(numbers))
    packed = np.frombuffer(word.to_bytes(-(-11 * bits // 8), "little"), dtype=np.uint8)
    assert unpack_bits(packed, bits=bits, count=11, signed=signed).tolist() == numbers.tolist()


def test_peak_counts_what_is_alive_at_the_widest_operation(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        wide = mb.tile(x=x, reps=[4, 1], name="wide")  # 40 x 6
        view = mb.reshape(x=wide, shape=[240], name="view")  # the same memory
        narrow = mb.reduce_sum(x=view, axes=[0], keep_dims=True, name="narrow")
        return mb.add(x=x, y=narrow, name="sum")  # x lives until here

    peak = activation_peak(built(tmp_path / "p.mlpackage", {"x": (10, 6)}, build))
    assert peak.num_bytes == 4 * (60 + 240 + 1)
    assert "reduce_sum 'narrow'" in peak.location
    assert peak.tensors[0] == ("wide", 960)
