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
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from nas.core.errors import UnavailableError
from nas.core.evaluation import WorkerFailure
from nas.core.resources import Resources
from nas.search.executors.lanes import Item, Lane, run_items

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from types import TracebackType

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# While one task runs the next waits at its worker, and a cluster that grows on demand sees that it should.
TASKS_PER_SLOT = 2
# Ray sends arguments of up to 100 kB with the task (max_direct_call_object_size) and keeps larger ones in its store.
INLINE_BYTES = 64 * 1024
CONNECT_S = 10.0
# How often it is looked whether any node is left while nothing ends, and how long one that was lost is waited for.
LOOK_AT_NODES_S = 30.0
GIVE_UP_S = 600.0
# How long a list of the cluster's nodes is believed.
_NODES_S = 1.0


class RayExecutor:
    """Runs items as Ray tasks; ``close`` it, or use it in a ``with``.

    The first use takes the Ray that this process runs already, else joins ``address``, else starts one with the
    dashboard off. ``close`` shuts down only what this executor started or joined.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        retries: int = 3,
        items_per_task: int | None = None,
        resources: Resources | None = None,
        grows: bool = False,
    ) -> None:
        """Note the settings; Ray is not started yet.

        Args:
            workers: Processors that a locally started Ray may use; all when left out.
            address: A running cluster (``auto``, ``ray://head:10001``) to use and leave running.
            retries: How often a task is tried again after its worker died.
            items_per_task: Items in one Ray task; by how long they take when left out.
            resources: What a task reserves unless its submission says otherwise; one processor when left out.
            grows: Whether the cluster adds nodes on demand, so that what no present node can run may wait for one.

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
        self._resources = resources or Resources()
        self._grows = grows
        self._started = False
        self._lanes: dict[tuple[int, Resources], Lane] = {}
        self._remotes: dict[int, tuple[Any, Any]] = {}  # by lane: the task, and the function as it travels
        self._tasks: dict[Any, tuple[Lane, list[Item]]] = {}
        self._lost_since: float | None = None
        self._nodes: tuple[float, list[dict[str, float]]] = (-_NODES_S, [])

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
        """Forget what was submitted, and shut down what this executor started or joined."""
        import ray

        self._lanes, self._remotes, self._tasks = {}, {}, {}
        if self._started:
            ray.shutdown()
            self._started = False

    def prepare(self, requests: Sequence[Resources]) -> None:
        """Start or join Ray, and check that some node can run a task of each kind.

        Raises:
            UnavailableError: None can, there is no cluster at the address, or Ray cannot start (in time).
        """
        self._start()
        with _losses():
            nodes = self._node_resources()
        for request in dict.fromkeys((self._resources, *requests)):
            if not self._grows and not any(_fits(request, node) for node in nodes):
                raise UnavailableError(
                    f"search.executor: a task reserves {request}, and no node of the cluster has that much; it has "
                    f"{'; '.join(sorted(map(_node_text, nodes))) or 'no node'}",
                    hint="lower what tasks reserve, add a node, or set search.executor.grows for a cluster that adds "
                    "nodes on demand",
                )

    def submit(self, key: Hashable, function: Callable[[T], R], item: T, resources: Resources | None = None) -> None:
        """Take an item to run; its task is sent while others are waited for."""
        resources = resources or self._resources
        lane = self._lanes.get((id(function), resources))
        if lane is None:
            lane = Lane(function, resources, self._items_per_task)
            self._lanes[id(function), resources] = lane
        lane.queue.append((key, item))

    def wait(self) -> list[tuple[Hashable, Any]]:
        """Return what has finished since the last call; items whose worker died on every try are ``WorkerFailure``.

        Raises:
            UnavailableError: Ray cannot start, or was lost, or every node that can run a task was.
            ValueError: Nothing was submitted.
            Exception: Whatever the function raised on a worker, as its own type.
        """
        self._start()
        results: list[tuple[Hashable, Any]] = []
        with _losses():
            while not results:
                self._dispatch()
                if not self._tasks:
                    raise ValueError("nothing was submitted to wait for")
                for reference in self._ready():
                    lane, items = self._tasks.pop(reference)
                    try:
                        results += self._results(reference, lane, items)
                    except Exception:
                        if not results:
                            lane.end(items)
                            raise
                        self._tasks[reference] = lane, items  # the next call raises it; what has finished is not lost
                        break
        return results

    def room(self, resources: Resources | None = None) -> int:
        """Return how many more items would start at once, were nothing else running; below 0 how many wait.

        Raises:
            UnavailableError: Ray cannot start, or was lost.
        """
        resources = resources or self._resources
        self._start()
        lanes = [lane for lane in self._lanes.values() if lane.resources == resources]
        per_task = max((lane.items_per_task for lane in lanes), default=1)
        taken = sum(lane.under_way + len(lane) for lane in lanes)
        with _losses():
            return per_task * self._slots(resources) - taken

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

    def _dispatch(self) -> None:
        """Send as many tasks as there is room for."""
        for lane in self._lanes.values():
            if not lane:
                continue
            slots = self._slots(lane.resources)
            task, function = self._remote(lane)
            while lane and lane.tasks < TASKS_PER_SLOT * slots:
                items = lane.take(slots)
                reference = task.remote(function, [item for _, item in items])
                self._tasks[reference] = (lane, items)

    def _remote(self, lane: Lane) -> tuple[Any, Any]:
        """Return the lane's task and its function, put into Ray's store when it is large."""
        import ray
        from ray import cloudpickle

        known = self._remotes.get(id(lane))
        if known is None:
            options: dict[str, Any] = {
                "max_retries": self._retries,
                "retry_exceptions": False,
                "num_cpus": lane.resources.cpus,
                "num_gpus": lane.resources.gpus,
            }
            if lane.resources.memory_mb is not None:
                options["memory"] = int(lane.resources.memory_mb * 1e6)
            payload: bytes = cloudpickle.dumps(lane.function)  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
            shared = lane.function if len(payload) < INLINE_BYTES else ray.put(lane.function)
            known = ray.remote(run_items).options(**options), shared
            self._remotes[id(lane)] = known
        return known

    def _ready(self) -> list[Any]:
        """Wait for a task to end; return all that have."""
        import ray

        first: list[Any] = []
        while not first:
            first, rest = ray.wait(list(self._tasks), num_returns=1, timeout=LOOK_AT_NODES_S)
            if not first:
                self._check_nodes()
        more, _ = ray.wait(rest, num_returns=len(rest), timeout=0) if rest else ([], [])
        return [*first, *more]

    def _check_nodes(self) -> None:
        """Give up when for a long time no node has been left that can run what is under way: it would wait for ever.

        Raises:
            UnavailableError: There is none.
        """
        nodes, now = self._node_resources(), time.monotonic()
        lost = [
            lane.resources
            for lane in self._lanes.values()
            if lane.tasks and not self._grows and not any(_fits(lane.resources, node) for node in nodes)
        ]
        if not lost:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
            logger.warning("no node is left for tasks that reserve %s; waiting for one to join", lost[0])
        elif now - self._lost_since > GIVE_UP_S:
            raise UnavailableError(
                f"the cluster lost every node that can run a task which reserves {lost[0]}, and none has joined for "
                f"{GIVE_UP_S:.0f} s",
                hint="add a node and run the same command again: what was finished is kept",
            )

    def _results(self, reference: Any, lane: Lane, items: list[Item]) -> list[tuple[Hashable, Any]]:
        """Return the results of a task that has ended; none when its items are tried again one by one."""
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayTaskError, WorkerCrashedError

        try:
            results, seconds = ray.get(reference)
        except RayTaskError as error:
            cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
            raise cause from None
        except (WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
            message = f"{type(error).__name__}: the worker died in each of {self._retries + 1} tries"
            if lane.was_lost(items):
                logger.warning("%s, %d candidates are tried one by one", message, len(items))
                return []
            logger.warning("%s, a candidate is given up", message)
            return [(items[0][0], WorkerFailure(message=message))]
        lane.came_back(items, len(results), seconds)
        return [(key, result) for (key, _), result in zip(items, results, strict=False)]

    def _slots(self, request: Resources) -> int:
        """Tasks of a kind that the cluster can run at once; it may have grown, shrunk or be empty for now."""
        return max(1, sum(_fitting(request, node) for node in self._node_resources()))

    def _node_resources(self) -> list[dict[str, float]]:
        """Return what each living node has in all, as of a second ago at most."""
        import ray

        seen, nodes = self._nodes
        if time.monotonic() - seen >= _NODES_S:
            nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray leaves it unannotated
            self._nodes = (time.monotonic(), nodes)
        return nodes


@contextmanager
def _losses() -> Iterator[None]:
    """Turn the loss of Ray into an error of ours."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:  # also of the function's own type
        raise
    except (RayError, ConnectionError) as error:
        reason = str(error).partition("\n")[0]
        raise UnavailableError(
            f"Ray was lost: {type(error).__name__}: {reason}",
            hint="run the same command again: what was finished is kept",
        ) from error


def _needs(request: Resources) -> Iterator[tuple[str, float]]:
    """Return Ray's names of what a task reserves; Ray counts memory in bytes."""
    yield "CPU", request.cpus
    yield "GPU", request.gpus
    yield "memory", (request.memory_mb or 0.0) * 1e6


def _fits(request: Resources, node: dict[str, float]) -> bool:
    return all(node.get(name, 0.0) >= need for name, need in _needs(request))


def _fitting(request: Resources, node: dict[str, float]) -> int:
    """Tasks that a node can run at once."""
    return min(int(node.get(name, 0.0) / need) for name, need in _needs(request) if need)


def _node_text(node: dict[str, float]) -> str:
    cpus, gpus, memory_mb = (node.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
    return str(Resources(cpus=cpus, gpus=gpus, memory_mb=memory_mb / 1e6)) if cpus or gpus else "no processors"


def _connect(address: str | None) -> None:
    """Raise ``OSError`` when nothing listens at a host and port; Ray itself tries for more than ten minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
