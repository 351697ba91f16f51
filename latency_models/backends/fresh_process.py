"""A backend whose later passes each run in a new process, so that repeats differ as sessions do.

Two processes need not run the same code at the same speed, as memory lies elsewhere in each. Seen on a shared 2-core
machine over eight sessions of 64 networks, four in each of two runs: the mean time against the anchor differed by 0.3
% between the runs, by about 0.1 % (standard deviation) between sessions of one run. Whether it was the process or the
hour the runs do not tell apart. Passes in processes of their own at least let a profile show it; shifts of about 1 %
between a profile and a later session have been seen that its passes did not show.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

    from latency_models.jobs import Availability, DeviceBackend, MeasurementJob, MeasurementPlan
    from nas.core.profile import DeviceInfo, ProfileRecord


class FreshProcessBackend:
    """Measures as ``backend`` does: here until ``renew`` is called, then in a process made new by every ``renew``.

    The process ends with this one, even when this one is killed. Use it in a ``with``.

    Args:
        backend: What measures; it, and every job, must survive being pickled to the new process.
    """

    def __init__(self, backend: DeviceBackend) -> None:
        self.name = backend.name
        self.origin = backend.origin
        self._backend = backend
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> FreshProcessBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def availability(self) -> Availability:
        """Say whether measuring is possible; never raises."""
        return self._backend.availability()

    def describe(self) -> DeviceInfo:
        """Describe the device."""
        return self._backend.describe()

    def renew(self) -> None:
        """Measure in a new process from now on."""
        self._close()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._backend), daemon=True)
        process.start()
        theirs.close()
        self._connection, self._process = ours, process

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        """Measure one job once.

        Raises:
            RuntimeError: The process died.
            Exception: What the backend raised in it.
        """
        if self._connection is None:
            return self._backend.measure(job, plan, memory=memory)
        try:
            self._connection.send((job, plan, memory))
            reply = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeError("the measuring process died; perhaps it ran out of memory") from error
        if isinstance(reply, BaseException):
            raise reply
        return reply  # type: ignore[no-any-return]  # a record, by the other end of the pipe

    def _close(self) -> None:
        if self._connection is not None and self._process is not None:
            self._connection.close()  # ends the other side's loop
            self._process.join()
        self._connection = self._process = None


def _serve(connection: Connection, backend: DeviceBackend) -> None:
    while True:
        try:
            job, plan, memory = connection.recv()
        except EOFError:
            return
        reply: Any
        try:
            reply = backend.measure(job, plan, memory=memory)
        except Exception as error:  # noqa: BLE001  # it is raised again at the other end
            reply = error
        connection.send(reply)
