"""Core AI's entry points without Core AI: the exported program, run by torch."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nas.export import coreai
from nas.export.component import Component, InputPort, OutputPort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest


def small_component() -> Component:
    torch.manual_seed(0)
    return Component(
        name="denoiser",
        module=nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 4)).eval(),
        inputs=(InputPort(name="sample", shape=(2, 8)),),
        outputs=(OutputPort(name="velocity"),),
    )


class FakeCoreAi:
    """Runs the exported program by torch and adds ``error`` to every value."""

    def __init__(self, *, error: float = 0.0, fault: Exception | None = None) -> None:
        self.error, self.fault = error, fault
        self.program: Any = None
        self.names: tuple[list[str], list[str]] = ([], [])

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        package, authoring, runtime, torch_side = (
            ModuleType(name) for name in ("coreai", "coreai.authoring", "coreai.runtime", "coreai_torch")
        )
        converter = lambda **_: self  # noqa: E731  # stands for the class
        converter.Mode = SimpleNamespace(RELEASE="release")  # type: ignore[attr-defined]
        torch_side.TorchConverter, torch_side.get_decomp_table = converter, dict  # type: ignore[attr-defined]
        runtime.NDArray = lambda array: SimpleNamespace(numpy=lambda: array)  # type: ignore[attr-defined]
        for module in (package, authoring, runtime, torch_side):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        package.authoring = authoring  # type: ignore[attr-defined]
        monkeypatch.setattr(coreai, "version", lambda _name: "0.0-fake")

    def add_exported_program(self, program: Any, *, input_names: list[str], output_names: list[str], **_: Any) -> None:
        self.program, self.names = program, (input_names, output_names)

    def to_coreai(self) -> FakeCoreAi:
        sys.stdout.write("progress\n")
        if self.fault is not None:
            raise self.fault
        return self

    def save_asset(self, path: Path) -> FakeCoreAi:
        path.mkdir()
        (path / "main").write_text("program")
        return self

    @asynccontextmanager
    async def executable(self) -> AsyncIterator[Any]:
        yield self

    def load_function(self, _name: str) -> Any:
        async def function(*, inputs: dict[str, Any]) -> dict[str, Any]:
            given = [torch.from_numpy(inputs[name].numpy()) for name in self.names[0]]
            with torch.no_grad():
                result = self.program.module()(*given) + self.error
            return {self.names[1][0]: SimpleNamespace(numpy=result.numpy)}

        return function
