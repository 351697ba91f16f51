"""Several packages of one network, computed one after the other: later ones read what earlier ones made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.export.mil.executor import Precision, Step, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from torch import Tensor

    from nas.export.mil.program import Program


def chained_steps(
    programs: Sequence[Program], inputs: Mapping[str, Tensor], *, precision: Precision = "float32"
) -> Generator[tuple[int, Step], tuple[Tensor, ...] | None, dict[str, Tensor]]:
    """Yield every operation of every package, with the package's place, as it is computed.

    Results that are sent into the generator take the place of those it gave, as in ``steps``.

    Returns:
        Tensor by output name of the last package, as the generator's value.

    Raises:
        InputError: A package reads what no one gives.
        NasError: Whatever ``steps`` raises.
    """
    known = dict(inputs)
    unread = set(inputs)
    for place, program in enumerate(programs):
        function = program.function()
        names = [port.name for port in function.inputs]
        unread -= set(names)
        if any(name not in known for name in names) or (unread and place == len(programs) - 1):
            raise InputError(f"{program.path}: takes the inputs {', '.join(names)}, given {', '.join(sorted(known))}")
        own = steps(program, {name: known[name] for name in names}, precision=precision)
        instead: tuple[Tensor, ...] | None = None
        while True:
            try:
                step = own.send(instead)
            except StopIteration as stop:
                known |= stop.value
                break
            instead = yield place, step
    return {name: known[name] for name in programs[-1].function().outputs}


def execute_chain(
    programs: Sequence[Program],
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
    watch: Callable[[Step], None] | None = None,
) -> dict[str, Tensor]:
    """Compute packages in call order; returns the outputs of the last one. See ``execute`` for arguments and errors.

    Args:
        programs: In call order.
        inputs: Tensor by input name, for all of them.
        precision: See ``execute``.
        watch: Called with every operation as it is computed.
    """
    walk = chained_steps(programs, inputs, precision=precision)
    while True:
        try:
            _, step = next(walk)
        except StopIteration as stop:
            outputs: dict[str, Tensor] = stop.value
            return outputs
        if watch:
            watch(step)
