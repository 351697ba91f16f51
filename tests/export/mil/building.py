"""Small ML Programs made with coremltools' own builder, saved as packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas.export.mil import read_program
from nas.export.shims import load_coremltools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nas.export.mil import Program


def unsaved_model(
    shapes: Mapping[str, tuple[int, ...]], build: Callable[..., Any], *, dtype: type = np.float32, target: str = "iOS18"
) -> Any:
    """Return what ``build(mb, **inputs)`` makes as an unsaved model; no pass folds, fuses or renames anything."""
    ct = load_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

    kind = types.numpy_type_to_builtin_type(dtype)
    program = Program()
    with Function(
        {name: mb.placeholder(shape=shape, dtype=kind) for name, shape in shapes.items()},
        opset_version=ct.target[target],
    ) as function:
        outputs = build(mb, **function.inputs)
        function.set_outputs(list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])
        program.add_function("main", function)
    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target[target],
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )


def save_program(
    path: Path, shapes: Mapping[str, tuple[int, ...]], build: Callable[..., Any], *, dtype: type = np.float32
) -> Path:
    """Save what ``build`` makes as a package."""
    unsaved_model(shapes, build, dtype=dtype).save(str(path))
    return path


def built(
    path: Path, shapes: Mapping[str, tuple[int, ...]], build: Callable[..., Any], *, dtype: type = np.float32
) -> Program:
    return read_program(save_program(path, shapes, build, dtype=dtype))
