"""A lock on a run directory, so that two processes never write it at once.

The kernel holds the lock (``flock`` on a file that is never removed), so it ends with its process, however that ends,
and nothing has to judge whether a process is alive. The file's text names the holder for people; text that is there
when the lock is free was left by a process that did not give it back.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from nas.core.errors import UnavailableError
from nas.core.files import canonical_json
from nas.core.provenance import timestamp

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class RunLock:
    """Context manager holding ``lock`` in a run directory; it is free again when its process is gone.

    ``took_over`` says whether the last holder ended without giving it back, which means its stages were cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self.took_over = False
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            UnavailableError: Another process holds it, the last holder was on another host, whose locks may not be
                seen here, or the folder cannot be locked; the message names the holder.
        """
        for _ in range(3):  # each further round means that a person deleted the file in this very moment
            handle = self._lock()
            if self._is_current(handle):
                break
            os.close(handle)
        else:
            raise UnavailableError(f"{self.path}: the lock file keeps vanishing", hint="let it be and try again")
        try:
            left = _read(handle)
            holder = _holder(left)
            if "host" in holder and holder["host"] != socket.gethostname():
                raise UnavailableError(
                    f"{self.path}: the run is in use by process {holder.get('pid')} on host {holder['host']!r}, "
                    f"since {holder.get('since')}",
                    hint="wait for it; if that process is gone, delete the lock file",
                )
            self.took_over = bool(left.strip())
            _write(handle, canonical_json({"pid": os.getpid(), "host": socket.gethostname(), "since": timestamp()}))
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; the file stays, empty, because a removed one could be locked by two."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            os.ftruncate(handle, 0)
            fcntl.flock(handle, fcntl.LOCK_UN)  # also for children that inherited the handle by a fork
        finally:
            os.close(handle)

    def is_held(self) -> bool:
        """Whether a process works on the run, as far as this host can see; takes nothing and writes nothing."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if _holder(_read(handle)).get("host", socket.gethostname()) != socket.gethostname():
                return True  # locks of another host may not be seen here
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def _lock(self) -> int:
        """Open and lock the file; return its handle, which no program started from here inherits."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UnavailableError(
                f"{self.path}: cannot be written: {error.strerror}", hint="check the folder's permissions"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = _read(handle)
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _in_use(self.path, _holder(text)) from error
            raise UnavailableError(
                f"{self.path}: cannot be locked: {error.strerror}", hint="use a file system that has locks"
            ) from error
        return handle

    def _is_current(self, handle: int) -> bool:
        """Whether the locked file still has the lock's name."""
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False


def _in_use(path: Path, holder: dict[str, Any]) -> UnavailableError:
    if "pid" not in holder:
        return UnavailableError(f"{path}: the run is in use by another process", hint="wait for it, or stop it")
    place = "" if holder.get("host") == socket.gethostname() else f" on host {holder.get('host')!r}"
    return UnavailableError(
        f"{path}: the run is in use by process {holder['pid']}{place}, since {holder.get('since')}",
        hint=f"wait for it, or stop it: kill {holder['pid']}",
    )


def _holder(text: bytes) -> dict[str, Any]:
    """Return who the lock file names; empty for one that is empty or damaged."""
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _read(handle: int) -> bytes:
    return os.pread(handle, 1 << 16, 0)


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode() + b"\n", 0)
