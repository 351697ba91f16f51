"""Several processes in one training: the main one keeps the run directory, the others follow it into the stage."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from nas.core.protocols import SilentProgress
from nas.pipeline.context import Context, TrainChoice, open_run

if TYPE_CHECKING:
    from collections.abc import Sequence


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Run ``python -m nas`` with ``arguments`` in processes of this host and return the exit code.

    The first that fails ends the others; its exit code is returned. Of several hosts, torch's or accelerate's own
    launcher starts the same command on each.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="nas",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "nas", *arguments)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        # A process that torch ended because another failed has a negative code, the number of the signal.
        return next((code for code in codes if code > 0), 1)
    return 0


def let_go() -> None:
    """Tell the processes that follow that nothing more is trained."""
    from nas.training.processes import tell_all

    tell_all(None)


def follow(choice: TrainChoice) -> None:
    """Train with the main process whenever it does, until it lets this one go."""
    from nas.pipeline.train import perform
    from nas.training.processes import tell_all

    while (told := tell_all(None)) is not None:
        context: Context = replace(open_run(told), train_choice=choice)
        perform(context, context.path("train"), SilentProgress())
