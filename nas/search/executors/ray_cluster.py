"""Runs items on Ray workers: this machine's processors, or a cluster given by its address.

ray is imported inside the functions: it takes a second to load and most searches do without. Work travels to the
workers in Ray's object store; nothing of it is written to a file of ours.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nas.core.errors import UnavailableError
from nas.core.evaluation import WorkerFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Settings of the executor.

    Attributes:
        workers: Processes of a locally started Ray; as many as there are processors when left out.
        address: A running cluster (``auto``, ``ray://head:10001``); left out, Ray is started here and stopped after.
        retries: How often an item is tried again after its worker died.
        items_per_task: Items in one Ray task. A task costs milliseconds, so cheap items belong together; a dead worker
            repeats its whole task.
        cpus_per_task: Processors one task reserves.
        gpus_per_task: GPUs one task reserves; a part of one is allowed.
    """

    workers: int | None = None
    address: str | None = None
    retries: int = 3
    items_per_task: int = 1
    cpus_per_task: float = 1.0
    gpus_per_task: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"executor.workers must be at least 1, got {self.workers}")
        if self.retries < 0:
            raise ValueError(f"executor.retries must be at least 0, got {self.retries}")
        if self.items_per_task < 1:
            raise ValueError(f"executor.items_per_task must be at least 1, got {self.items_per_task}")


class RayExecutor:
    """A context manager around Ray: ``with RayExecutor(options) as executor: …``.

    Connects to a Ray that this process runs already, else to ``address``, else starts one with the dashboard off.
    On leaving only what it started or connected itself is shut down.
    """

    Options = RayOptions

    def __init__(self, options: RayOptions | None = None) -> None:
        self._options = options or RayOptions()
        self._started = False

    def __enter__(self) -> RayExecutor:
        """Start or join Ray.

        Raises:
            UnavailableError: There is no cluster at the address, or Ray cannot start.
        """
        import ray

        if ray.is_initialized():
            return self
        arguments: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._options.address is None:
            arguments |= {"num_cpus": self._options.workers or os.cpu_count() or 1, "include_dashboard": False}
        else:
            arguments["address"] = self._options.address
        try:
            ray.init(**arguments)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            where = (
                f"no Ray cluster at {self._options.address!r}" if self._options.address else "Ray does not start here"
            )
            raise UnavailableError(
                f"{where}: {error}", hint="check search.executor, or use the serial executor"
            ) from error
        self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down what this executor started."""
        import ray

        if self._started:
            ray.shutdown()
            self._started = False

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R | WorkerFailure]:
        """Yield results in item order; items whose worker died on every try yield a ``WorkerFailure``.

        Raises:
            RuntimeError: The executor was not entered.
            Exception: Whatever ``function`` raised on a worker, as its own type.
        """
        import ray

        if not ray.is_initialized():
            raise RuntimeError("RayExecutor.map needs a running Ray: use `with RayExecutor(…) as executor`")
        chunks = [
            items[at : at + self._options.items_per_task] for at in range(0, len(items), self._options.items_per_task)
        ]
        task: Any = ray.remote(_run_chunk).options(
            max_retries=self._options.retries,
            retry_exceptions=False,
            num_cpus=self._options.cpus_per_task,
            num_gpus=self._options.gpus_per_task,
        )
        shared = ray.put(function)
        waiting = [task.remote(shared, chunk) for chunk in chunks]
        try:
            for reference, chunk in zip(list(waiting), chunks, strict=True):
                yield from self._results(reference, chunk)
                waiting.remove(reference)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _results(self, reference: Any, chunk: Sequence[T]) -> Iterator[Any]:
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

        try:
            yield from ray.get(reference)
        except RayTaskError as error:
            cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
            raise cause from None
        except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
            tries = self._options.retries + 1
            message = f"{type(error).__name__}: the worker died in each of {tries} tries"
            logger.warning("%s, %d candidates lost", message, len(chunk))
            yield from (WorkerFailure(message=message) for _ in chunk)


def _run_chunk(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]
