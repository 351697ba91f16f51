"""Runs items on Ray workers: this machine's processors, or a cluster given by its address.

ray is imported inside the functions: it takes a second to load and most searches do without. Work travels to the
workers with the tasks or in Ray's object store; nothing of it is written to a file of ours.

Tasks are never cancelled: when a task ends while it is cancelled, Ray's native code ends the whole driver process with
exit code 1 and no message (seen with Ray 2.60, "Tried to complete task that was not pending"; ray-project/ray#54798
describes that race). Instead only ``TASKS_PER_SLOT`` times as many tasks are under way as can run, so that little is
left behind when a caller gives up.

Two losses still end the driver the same way, by Ray's design: of the head's control service for 60 s
(``RAY_gcs_rpc_server_reconnect_timeout_s``), and of Ray's processes on the driver's own machine while something is in
its object store. The journal of a search survives both. For the latter, small functions stay out of the store: then
the loss is an ``UnavailableError``.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from nas.core.errors import UnavailableError
from nas.core.evaluation import WorkerFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# While one task runs the next waits at its worker, and a cluster that grows on demand sees that it should.
TASKS_PER_SLOT = 2
# Ray sends arguments of up to 100 kB with the task (max_direct_call_object_size) and keeps larger ones in its store.
INLINE_BYTES = 64 * 1024
CONNECT_S = 10.0


class RayExecutor:
    """Runs items as Ray tasks; ``close`` it, or use it in a ``with``.

    The first ``map`` uses the Ray that this process runs already, else joins ``address``, else starts one with the
    dashboard off. ``close`` shuts down only what this executor started or joined.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        retries: int = 3,
        items_per_task: int = 1,
        cpus_per_task: float = 1.0,
        gpus_per_task: float = 0.0,
    ) -> None:
        """Note the settings; Ray is not started yet.

        Args:
            workers: Processes of a locally started Ray; as many as there are processors when left out.
            address: A running cluster (``auto``, ``ray://head:10001``) to use and leave running.
            retries: How often an item is tried again after its worker died.
            items_per_task: Items in one Ray task. A task costs milliseconds, so cheap items belong together; when a
                worker dies its whole task is repeated.
            cpus_per_task: Processors one task reserves.
            gpus_per_task: GPUs one task reserves; a part of one is allowed.

        Raises:
            ValueError: A count is too small.
        """
        for name, value, least in (
            ("workers", workers, 1),
            ("retries", retries, 0),
            ("items_per_task", items_per_task, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"executor.{name} must be at least {least}, got {value}")
        self._workers = workers
        self._address = address
        self._retries = retries
        self._items_per_task = items_per_task
        self._resources = {"num_cpus": cpus_per_task, "num_gpus": gpus_per_task}
        self._started = False

    def __enter__(self) -> RayExecutor:
        """Start or join Ray now.

        Raises:
            UnavailableError: There is no cluster at the address, or Ray cannot start (in time).
        """
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the executor."""
        self.close()

    def close(self) -> None:
        """Shut down what this executor started or joined."""
        import ray

        if self._started:
            ray.shutdown()
            self._started = False

    def _start(self) -> None:
        import ray

        if ray.is_initialized():
            return
        arguments: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._address is None:
            arguments |= {
                "address": "local",  # left out, Ray joins any cluster it finds and then refuses num_cpus
                "num_cpus": self._workers or os.cpu_count() or 1,
                "include_dashboard": False,
            }
        else:
            arguments["address"] = self._address
        try:
            _connect(self._address)
            ray.init(**arguments)
        except Exception as error:  # Ray raises a bare Exception when a start times out
            where = "Ray does not start here" if self._address is None else f"no Ray cluster at {self._address!r}"
            raise UnavailableError(
                f"{where}: {error}", hint="check search.executor, or use the serial executor"
            ) from error
        self._started = True

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R | WorkerFailure]:
        """Yield results in item order; items whose worker died on every try yield a ``WorkerFailure``.

        When the caller stops iterating, tasks under way run on until they are done or Ray is shut down.

        Raises:
            UnavailableError: Ray cannot start, or was lost.
            Exception: Whatever ``function`` raised on a worker, as its own type.
        """
        from ray.exceptions import RayError, RayTaskError

        self._start()
        try:
            yield from self._map(function, items)
        except RayTaskError:  # also of the function's own type
            raise
        except (RayError, ConnectionError) as error:
            reason = str(error).partition("\n")[0]
            raise UnavailableError(
                f"Ray was lost: {type(error).__name__}: {reason}",
                hint="run the same command again: what was finished is kept",
            ) from error

    def _map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R | WorkerFailure]:
        import ray
        from ray import cloudpickle

        size = self._items_per_task
        chunks = (items[at : at + size] for at in range(0, len(items), size))
        options = {"max_retries": self._retries, "retry_exceptions": False, **self._resources}
        task: Any = ray.remote(_run_chunk).options(**options)
        payload: bytes = cloudpickle.dumps(function)  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
        shared = function if len(payload) < INLINE_BYTES else ray.put(function)
        submitted: deque[tuple[Any, Sequence[T]]] = deque()
        running: list[Any] = []
        while True:
            room = max(0, TASKS_PER_SLOT * self._slots() - len(running))
            new = [(task.remote(shared, chunk), chunk) for chunk in islice(chunks, room)]
            submitted.extend(new)
            running.extend(reference for reference, _ in new)
            if not submitted:
                return
            reference, chunk = submitted[0]
            if reference in running:
                _, running = ray.wait(running)
            else:
                submitted.popleft()
                yield from self._results(reference, chunk)

    def _slots(self) -> int:
        """Tasks that the cluster can run at once; it may have grown, shrunk or be empty for now."""
        import ray

        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
        reserved = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        return max(1, min((int(resources.get(name, 0.0) / need) for name, need in reserved.items() if need), default=1))

    def _results(self, reference: Any, chunk: Sequence[T]) -> Iterator[Any]:
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayTaskError, WorkerCrashedError

        try:
            results = ray.get(reference)
        except RayTaskError as error:
            cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
            raise cause from None
        except (WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
            tries = self._retries + 1
            message = f"{type(error).__name__}: the worker died in each of {tries} tries"
            logger.warning("%s, %d candidates lost", message, len(chunk))
            results = [WorkerFailure(message=message) for _ in chunk]
        yield from results


def _connect(address: str | None) -> None:
    """Raise ``OSError`` when nothing listens at a host and port; Ray itself tries for more than ten minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _run_chunk(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]
