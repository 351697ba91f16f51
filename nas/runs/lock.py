"""A lock file with process and host, so that two processes never write one run directory.

psutil is imported inside the functions that use it: it tells a live process from a later one with the same number.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError, UnavailableError
from nas.core.files import canonical_json, read_json
from nas.core.provenance import timestamp

if TYPE_CHECKING:
    from types import TracebackType

# psutil reads start times from clock ticks (10 ms on Linux); a process number is not given out again that fast.
START_TOLERANCE_S = 2.0


class RunLock:
    """Context manager holding ``lock`` in a run directory; the lock of a dead process of this host is taken over.

    ``took_over`` says whether a dead process's lock was found, which means its stages were cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self.took_over = False

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            UnavailableError: A live process, or a process of another host, holds it; the message names it.
        """
        for _ in range(3):  # each further round means another process took over the same dead lock first
            if self._create():
                return self
            self._remove_dead()
        raise UnavailableError(f"{self.path}: several processes are taking this lock", hint="start only one of them")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Link a complete temporary file to the lock's name, which fails when the name is taken."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".lock.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(canonical_json(_this_process()) + "\n")
            os.link(name, self.path)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink()
        return True

    def _remove_dead(self) -> None:
        try:
            holder = read_json(self.path)
        except InputError:
            if not self.path.exists():
                return  # given back in this moment
            raise
        if not isinstance(holder, dict) or not {"pid", "host"} <= holder.keys():
            raise InputError(f"{self.path}: not a lock file", hint="delete it if no process writes this run")
        if holder["host"] != socket.gethostname():
            raise UnavailableError(
                f"{self.path}: the run is in use by process {holder['pid']} on host {holder['host']!r}, "
                f"since {holder.get('since')}",
                hint="wait for it; if that host is gone, delete the lock file",
            )
        if _alive(holder):
            raise UnavailableError(
                f"{self.path}: the run is in use by process {holder['pid']}, since {holder.get('since')}",
                hint=f"wait for it, or stop it: kill {holder['pid']}",
            )
        self.took_over = True
        self.path.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    import psutil

    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_started": psutil.Process().create_time(),
        "since": timestamp(),
    }


def _alive(holder: dict[str, Any]) -> bool:
    import psutil

    try:
        process = psutil.Process(int(holder["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started = holder.get("process_started")
        return started is None or abs(process.create_time() - float(started)) < START_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
