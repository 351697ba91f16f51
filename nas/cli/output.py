"""What the command line prints: results to stdout, progress and errors to stderr, one JSON document with ``--json``."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nas.core.errors import NasError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A line a minute is enough for a log file; a terminal is refreshed five times a second.
_LOG_INTERVAL_S = 60.0
_TERMINAL_INTERVAL_S = 0.2


class TerminalProgress:
    """Progress as one line that is rewritten on a terminal, or as a line a minute elsewhere."""

    def __init__(self, label: str, *, quiet: bool) -> None:
        self._label = label
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._first_done: int | None = None
        self._last_done, self._total = 0, 0
        self._last = -1e9

    def update(self, done: int, total: int, message: str = "") -> None:
        """Show ``done`` of ``total`` with the expected remaining time."""
        now = time.monotonic()
        if self._first_done is None or total != self._total or done < self._last_done:  # other work begins
            self._first_done, self._started = done, now
        self._last_done, self._total = done, total
        interval = _TERMINAL_INTERVAL_S if self._terminal else _LOG_INTERVAL_S
        if self._quiet or (now - self._last < interval and done < total):
            return
        self._last = now
        text = f"{self._label}: {done}/{total}{self._remaining(done, total, now)}{' · ' + message if message else ''}"
        if self._terminal:
            end = "\n" if done >= total else ""
            click.echo(f"\r\033[K{text[: max(_columns() - 1, 20)]}{end}", err=True, nl=False)
        else:
            click.echo(text, err=True)

    def _remaining(self, done: int, total: int, now: float) -> str:
        steps = done - (self._first_done or 0)
        if steps <= 0 or done >= total:
            return ""
        return f" · {_duration((now - self._started) / steps * (total - done))} left"


def _duration(seconds: float) -> str:
    """Words for a time: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


class Console:
    """Where one command writes."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        if verbose:
            import logging

            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")  # to stderr

    def progress(self, label: str) -> TerminalProgress:
        """Return the progress of one stage."""
        return TerminalProgress(label, quiet=self.quiet)

    def say(self, text: str) -> None:
        """Print a line for people to stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """Print the command's result to stdout: ``data`` with ``--json``, ``text`` otherwise."""
        click.echo(json.dumps(data, indent=2, allow_nan=False) if self.as_json else text)

    def fail(self, error: NasError, data: Mapping[str, Any], text: str) -> NoReturn:
        """Print a result that ends in an error, with ``--json`` as one document, and exit with the error's code."""
        if not self.as_json:
            click.echo(text)
        self._fail(error.kind, error.exit_code, error.message, error.hint, error, data)

    @contextmanager
    def errors(self, log: Path | None = None) -> Iterator[None]:
        """Turn exceptions into a message and an exit code; a bug's traceback goes to ``log``."""
        try:
            yield
        except NasError as error:
            self._fail(error.kind, error.exit_code, error.message, error.hint, error)
        except KeyboardInterrupt:
            self._fail("interrupted", 130, "interrupted; state is saved", "run the same command to continue")
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OSError as error:
            self._fail("unavailable", 6, str(error), "check the path, its permissions and the free space")
        except Exception as error:  # noqa: BLE001  # the outermost frame: a bug becomes exit 1 with a log
            place = _write_traceback(log)
            self._fail("bug", 1, f"unexpected {type(error).__name__}: {error}", f"the traceback is in {place}")

    def _fail(
        self,
        kind: str,
        code: int,
        message: str,
        hint: str | None,
        error: NasError | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        if self.as_json:
            from dataclasses import asdict

            problems = [asdict(problem) for problem in error.problems] if error else []
            body = {"kind": kind, "exit": code, "message": message, "problems": problems, "hint": hint}
            click.echo(json.dumps({**(data or {}), "error": body}, indent=2))
        else:
            click.echo(f"error: {message}" + (f"\nhint: {hint}" if hint else ""), err=True)
        raise SystemExit(code)


def _write_traceback(log: Path | None) -> Path:
    place = log or Path(tempfile.gettempdir()) / "nas-error.log"
    with place.open("a", encoding="utf-8") as stream:
        stream.write(traceback.format_exc())
    return place
