"""Repairs and silencing of coremltools, applied around one conversion and undone after it.

coremltools is imported inside functions: it costs seconds and only an export needs it.
"""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, contextmanager
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

TORCH_OPS = "coremltools.converters.mil.frontend.torch.ops"
PASSES = "coremltools.converters.mil.mil.passes.pass_pipeline"
COMPRESSION_PASSES = "coremltools.optimize.coreml._quantization_passes"
# Said at every import or conversion on Linux, and nothing a user could act on.
NOISE = re.compile(
    r"Failed to load _ML\w+Proxy|has not been tested with coremltools|scikit-learn version .* is not supported"
    r"|Saving value type of int64 into a builtin type of int32"
)


def load_coremltools() -> ModuleType:
    """Import coremltools without its standing warnings; others are let through.

    Raises:
        UnavailableError: It is not installed, or its native parts do not load here.
    """
    with _without_noise():
        try:
            return import_module("coremltools")
        except ImportError as error:
            raise UnavailableError(
                f"Core ML export needs coremltools, which cannot be imported: {error}",
                hint="pip install coremltools (Linux or macOS, Python below 3.14)",
            ) from error


@contextmanager
def repaired_coremltools() -> Iterator[ModuleType]:
    """Give coremltools with its known faults mended and its progress bars off, for as long as the block runs.

    Raises:
        UnavailableError: coremltools cannot be imported.
    """
    coremltools = load_coremltools()
    with _without_noise(), ExitStack() as stack:
        torch_ops, passes = import_module(TORCH_OPS), import_module(PASSES)
        stack.enter_context(_replaced(torch_ops, "_tqdm", _no_bar))
        stack.enter_context(_replaced(passes, "tqdm", _no_bar))
        stack.enter_context(_replaced(import_module(COMPRESSION_PASSES), "tqdm", _no_bar))
        if needs_cast_repair():
            stack.enter_context(_replaced(torch_ops, "_cast", _repaired_cast(torch_ops)))
        yield coremltools


def needs_cast_repair() -> bool:
    """Whether this pair of coremltools and NumPy fails at ``int(x.shape[0])`` in traced networks.

    coremltools 9.0 calls ``int`` on arrays of one element, which NumPy refuses from 2.4 on when they have an axis.
    Mended upstream in 9.1 (apple/coremltools pull request 2632): remove this when 9.1 is the lowest version allowed.
    """
    numpy_version = _release(np.__version__)
    return _release(metadata.version("coremltools")) < (9, 1) and numpy_version >= (2, 4)


def _repaired_cast(torch_ops: ModuleType) -> Callable[..., None]:
    from coremltools.converters.mil import Builder

    original = torch_ops._cast

    def cast(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        (value,) = torch_ops._get_inputs(context, node, expected=1)
        if value.can_be_folded_to_const() and np.size(value.val) == 1 and not isinstance(value.val, dtype):
            context.add(Builder.const(val=dtype(np.asarray(value.val).item()), name=node.name), node.name)
        else:
            original(context, node, dtype, dtype_name)

    return cast


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextmanager
def _without_noise() -> Iterator[None]:
    logger = logging.getLogger("coremltools")
    level = logger.level
    # At INFO it names every operation it converts and removes: thousands of lines, and a third of the time.
    logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))

    def interesting(record: logging.LogRecord) -> bool:
        return NOISE.search(record.getMessage()) is None

    logger.addFilter(interesting)
    try:
        yield
    finally:
        logger.removeFilter(interesting)
        logger.setLevel(level)


def _no_bar(items: Iterable[Any], **_options: Any) -> Iterable[Any]:
    return items


def _release(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)
