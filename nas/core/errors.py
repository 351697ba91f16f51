"""Errors a user can cause or meet; each carries a hint and the exit code of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault of an input: where it is and what is wrong."""

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None


class NasError(Exception):
    """Base of every error the toolkit raises on purpose.

    Args:
        message: What is wrong, where, what was given and what is allowed.
        hint: What to do next.
        problems: The single faults, when there may be several.
    """

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = problems


class ConfigError(NasError, ValueError):
    """The command line or a configuration file is wrong."""

    kind = "config"
    exit_code = 2


class ArchitectureError(NasError, ValueError):
    """An architecture does not belong to its search space."""

    kind = "architecture"
    exit_code = 2


class InputError(NasError):
    """An input file is missing, damaged, of an unknown version, or stale."""

    kind = "input"
    exit_code = 3


class ProfileError(InputError, ValueError):
    """A profile set or one of its records cannot be used."""

    kind = "profile"


class CheckpointError(InputError):
    """A checkpoint or weight file cannot be used."""

    kind = "checkpoint"


class BudgetError(NasError):
    """Nothing in the search space meets the budget."""

    kind = "budget"
    exit_code = 4


class VerificationError(NasError):
    """An exported model, digest or coverage does not hold."""

    kind = "verification"
    exit_code = 5


class UnavailableError(NasError):
    """This machine lacks something: a package, macOS, a device, memory or disk."""

    kind = "unavailable"
    exit_code = 6


class MeasurementError(NasError):
    """A measurement is unstable or was lost; what was measured so far is kept."""

    kind = "measurement"
    exit_code = 7


class TrainingError(NasError):
    """Training cannot go on (not-a-number loss, divergence); the last good checkpoint is kept."""

    kind = "training"
    exit_code = 1


@dataclass(slots=True)
class ProblemCollector:
    """Gathers faults so that all are reported at once."""

    problems: list[Problem] = field(default_factory=list)

    def add(self, message: str, *, path: str = "", line: int | None = None, column: int | None = None) -> None:
        """Note one fault."""
        self.problems.append(Problem(message=message, path=path, line=line, column=column))
