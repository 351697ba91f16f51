"""Fit a device file's constants to measurements: maximum a posteriori in log space, with the file as the prior.

Every constant has the spread its file states (``Figure.log_sd``), so a few measurements move what they speak of and
leave the rest. Samples may come from several chips: a constant's shift is then one for all of them, relative to what
each chip's file says, and each chip has a scale of its own on top. That is how a handful of rows of one source tells
about a chip that is not among them.

scipy is imported inside functions: predicting does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latency_models.constants import SCALE, UNIT_CONSTANTS, FittedConstant, shifted, with_constants
from latency_models.devices import DeviceSpec, WeightFormat
from latency_models.features import BlockFeatures
from latency_models.lowering import WORK_KINDS
from latency_models.placement import place
from latency_models.predictors.roofline import placed_units
from latency_models.step_times import Steps, rates_of, step_seconds, steps_of
from nas.core.errors import ConfigError
from nas.core.scenario import ComputeUnits, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_models.devices import Figure, UnitSpec

FloatArray = NDArray[np.float64]

# What the formula leaves out, as a standard deviation of the logarithm, before any sample is seen, and how many
# samples that is worth. A public model of this kind fitted to 68 graphs misses by 31 % in the median (ane-guide, arXiv
# 2606.22283), within one family of networks by less.
_MODEL_SD, _MODEL_SD_WORTH = 0.15, 5.0
_LEAST_SD = 0.01
_ROUNDS = 4
# How far a chip's times are off from those of its file as a whole, when others are off by nothing.
_CHIP_SD = 0.25
# The chip's working set is a threshold, which has no slope: these multiples of the file's are tried.
_WORKING_SETS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_PLAIN = WeightFormat()


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSample:
    """One measured call: a block alone or a whole network.

    Attributes:
        device: Device it was measured on, by its file.
        blocks: What ran.
        measured_ms: Time of one call.
        weights: How weights were stored.
        compute_units: Core ML setting.
        precision: Number format.
        lowerings: Lowerings that take the place of the file's, by compute unit.
        log_sd: Standard deviation of the logarithm of ``measured_ms`` that its repeats show.
    """

    device: DeviceSpec
    blocks: tuple[BlockFeatures, ...]
    measured_ms: float
    weights: WeightFormat = _PLAIN
    compute_units: ComputeUnits = "cpu_and_ne"
    precision: Precision = "float16"
    lowerings: tuple[tuple[str, str], ...] = ()
    log_sd: float = 0.0

    def __post_init__(self) -> None:
        if not (self.measured_ms > 0.0 and np.isfinite(self.measured_ms)):
            raise ValueError(f"a measured time must be above 0 ms and finite, got {self.measured_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRates:
    """Constants after a fit.

    Attributes:
        constants: Every constant that some sample depends on, and the scales of the chips where there are several.
        covariance: Of the logarithms of the constants' factors, in their order.
        working_set_factor: Factor on ``on_chip_bytes`` of every unit.
        model_log_sd: What the fitted formula still leaves out, as standard deviation of the logarithm.
        num_samples: Samples fitted on.
        prior_error: Median of the absolute logarithmic errors of the file's own values.
        fitted_error: The same after the fit.
    """

    constants: tuple[FittedConstant, ...]
    covariance: tuple[tuple[float, ...], ...]
    working_set_factor: float
    model_log_sd: float
    num_samples: int
    prior_error: float
    fitted_error: float

    def device(self, spec: DeviceSpec) -> DeviceSpec:
        """Return ``spec`` with the fitted constants; each says that it was fitted and how sure it is."""
        return with_constants(spec, self.constants, self.working_set_factor, samples=self.num_samples)

    def predict(self, sample: RateSample) -> tuple[float, float]:
        """Return the time of one call (ms) and the standard deviation of its logarithm; ``measured_ms`` is not used."""
        model = _Model([sample], self.working_set_factor)
        shifts = {constant.name: log(constant.factor) for constant in self.constants}
        centre = model.log_ms(shifts)
        slopes = (
            np.array([model.log_ms({**shifts, name: shift + 1e-4})[0] - centre[0] for name, shift in shifts.items()])
            / 1e-4
        )
        variance = float(slopes @ np.array(self.covariance) @ slopes) + self.model_log_sd**2 + sample.log_sd**2
        scales = {name for name in shifts if name.startswith(SCALE)}
        if scales and f"{SCALE}{sample.device.chip}" not in scales:
            variance += _CHIP_SD**2
        return float(np.exp(centre[0])), float(np.sqrt(variance))


def prior_ms(sample: RateSample) -> float:
    """Return the time of one call (ms) by the device's file alone; ``measured_ms`` is not used."""
    return float(np.exp(_Model([sample], 1.0).log_ms({})[0]))


UNFITTED = FittedRates(
    constants=(),
    covariance=(),
    working_set_factor=1.0,
    model_log_sd=_MODEL_SD,
    num_samples=0,
    prior_error=0.0,
    fitted_error=0.0,
)


def fit_rates(samples: Sequence[RateSample]) -> FittedRates:
    """Fit the constants of the samples' devices.

    Residuals are of logarithms, with a pseudo-Huber loss beyond one standard deviation, so that single odd samples do
    not tilt the fit; the standard deviation is fitted along. Posterior spreads are Laplace's.

    Raises:
        ConfigError: There is no sample.
    """
    if not samples:
        raise ConfigError("rates cannot be fitted to no samples", hint="profile at least one block or network")
    first = min((_fit_at(samples, factor, rounds=1) for factor in _WORKING_SETS), key=lambda fit: fit.objective)
    best = _fit_at(samples, first.factor, rounds=_ROUNDS)
    sds = np.sqrt(np.diag(best.covariance))
    measured = np.log([sample.measured_ms for sample in samples])
    prior = _Model(samples, 1.0).log_ms({})
    return FittedRates(
        constants=tuple(
            FittedConstant(name=name, factor=float(np.exp(shift)), prior_log_sd=prior_sd, log_sd=float(sd))
            for (name, prior_sd), shift, sd in zip(best.names.items(), best.shifts, sds, strict=True)
        ),
        covariance=tuple(tuple(float(value) for value in row) for row in best.covariance),
        working_set_factor=best.factor,
        model_log_sd=best.sd,
        num_samples=len(samples),
        prior_error=float(np.median(np.abs(prior - measured))),
        fitted_error=float(np.median(np.abs(best.residuals))),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    factor: float
    names: dict[str, float]
    shifts: FloatArray
    covariance: FloatArray
    residuals: FloatArray
    sd: float
    objective: float


def _fit_at(samples: Sequence[RateSample], factor: float, *, rounds: int) -> _Fit:
    """Fit with the working set at one multiple of the files'."""
    from scipy.optimize import least_squares

    model = _Model(samples, factor)
    names = list(model.constants)
    prior_sds = np.array(list(model.constants.values()))
    measured = np.log([sample.measured_ms for sample in samples])
    repeats = np.array([sample.log_sd for sample in samples])
    shifts, sd = np.zeros(len(names)), _MODEL_SD
    for _ in range(rounds):
        spread = np.hypot(sd, repeats)

        def weighted(values: FloatArray, spread: FloatArray = spread) -> FloatArray:
            errors = (model.log_ms(dict(zip(names, values, strict=True))) - measured) / spread
            robust = np.sign(errors) * np.sqrt(2.0 * (np.sqrt(1.0 + errors**2) - 1.0))
            return np.concatenate([robust, values / prior_sds])

        found = least_squares(weighted, shifts, x_scale=prior_sds, max_nfev=60, xtol=1e-5, ftol=1e-5)
        shifts = found.x
        residuals = model.log_ms(dict(zip(names, shifts, strict=True))) - measured
        sd = _model_sd(residuals, repeats)
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    # The file's own threshold is as likely to be off by a factor of two either way as its other figures.
    penalty = 0.5 * (log(factor) / log(2.0)) ** 2
    objective = float(found.cost + penalty + len(samples) * log(sd))
    return _Fit(
        factor=factor,
        names=model.constants,
        shifts=shifts,
        covariance=covariance,
        residuals=residuals,
        sd=sd,
        objective=objective,
    )


def _model_sd(residuals: FloatArray, repeats: FloatArray) -> float:
    """Return what is left out by the formula: the residuals' spread beyond that of repeats, shrunk to the prior's."""
    # A residual counts at most three standard deviations, for single odd ones say nothing about the rest.
    ceiling = 3.0 * max(1.4826 * float(np.median(np.abs(residuals))), _LEAST_SD)
    squares = np.minimum(np.abs(residuals), ceiling) ** 2 - repeats**2
    mean = (_MODEL_SD_WORTH * _MODEL_SD**2 + float(np.sum(np.maximum(squares, 0.0)))) / (
        _MODEL_SD_WORTH + len(residuals)
    )
    return max(_LEAST_SD, float(np.sqrt(mean)))


class _Model:
    """The formula as a function of shifts of the constants, for many samples at once.

    Attributes:
        constants: Prior spread of every constant that some sample depends on, by name.
    """

    def __init__(self, samples: Sequence[RateSample], working_set_factor: float) -> None:
        self._factor = working_set_factor
        self._count = len(samples)
        self._groups: dict[tuple[DeviceSpec, ComputeUnits, Precision, tuple[tuple[str, str], ...]], list[_Call]] = {}
        for index, sample in enumerate(samples):
            key = (sample.device, sample.compute_units, sample.precision, sample.lowerings)
            self._groups.setdefault(key, []).append(_call(index, sample))
        self._joined = {key: _Joined.of(calls) for key, calls in self._groups.items()}
        self.constants = self._active()

    def log_ms(self, shifts: Mapping[str, float]) -> FloatArray:
        """Return the logarithm of each sample's time in ms, (N,)."""
        total = np.zeros(self._count)
        for (device, setting, precision, lowerings), joined in self._joined.items():
            spec = shifted(device, shifts, self._factor)
            units = placed_units(spec, setting, precision, lowerings=lowerings)
            total[joined.samples] += units[0].call_overhead_ms.value
            for position, unit in enumerate(units):
                steps, owner = joined.steps[position]
                if len(owner):
                    seconds = step_seconds(steps, rates_of(unit, precision))
                    total += 1e3 * np.bincount(owner, weights=seconds, minlength=self._count)
                total[joined.samples] += joined.begun[position] * unit.segment_overhead_ms.value
            total[joined.samples] += joined.begun.sum(axis=0) * spec.crossing_ms.value
        return np.asarray(np.log(total))

    def _active(self) -> dict[str, float]:
        chips = sorted({device.chip for device, *_ in self._joined})
        found = {f"{SCALE}{chip}": _CHIP_SD for chip in chips} if len(chips) > 1 else {}
        for (device, setting, precision, lowerings), joined in self._joined.items():
            for position, unit in enumerate(placed_units(device, setting, precision, lowerings=lowerings)):
                for name, figure in _unit_figures(unit, joined, position):
                    if figure.value > 0.0:
                        found.setdefault(f"{unit.compute_unit}.{name}", figure.log_sd)
            if joined.begun.any() and device.crossing_ms.value > 0.0:
                found.setdefault("crossing_ms", device.crossing_ms.log_sd)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    """Steps of one sample by unit, and how often it begins a segment on each unit beyond the first."""

    index: int
    steps: tuple[Steps, ...]
    begun: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Joined:
    """Steps of all samples of one device and setting, by unit, with the sample each belongs to."""

    samples: NDArray[np.int64]
    steps: tuple[tuple[Steps, NDArray[np.int64]], ...]
    begun: FloatArray  # (units, samples)

    @classmethod
    def of(cls, calls: Sequence[_Call]) -> _Joined:
        num_units = len(calls[0].steps)
        steps = []
        for position in range(num_units):
            owner = np.repeat([call.index for call in calls], [len(call.steps[position].flops) for call in calls])
            steps.append((_concatenated([call.steps[position] for call in calls]), owner))
        return cls(
            samples=np.array([call.index for call in calls], dtype=np.int64),
            steps=tuple(steps),
            begun=np.array([call.begun for call in calls], dtype=float).T,
        )


def _call(index: int, sample: RateSample) -> _Call:
    units = placed_units(sample.device, sample.compute_units, sample.precision, lowerings=sample.lowerings)
    placements = [place(block.operations, units) for block in sample.blocks]
    steps = []
    for position, unit in enumerate(units):
        operations = [
            operation
            for block, placement in zip(sample.blocks, placements, strict=True)
            for operation, chosen in zip(block.operations, placement.units, strict=True)
            if chosen == position
        ]
        steps.append(steps_of(operations, unit, sample.weights))
    begun = tuple(
        sum(placement.segments[1:].count(position) for placement in placements) for position in range(len(units))
    )
    return _Call(index=index, steps=tuple(steps), begun=begun)


def _concatenated(parts: Sequence[Steps]) -> Steps:
    return Steps(
        flops=np.concatenate([part.flops for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        weight_bytes=np.concatenate([part.weight_bytes for part in parts]),
        moved_bytes=np.concatenate([part.moved_bytes for part in parts]),
        resident_bytes=np.concatenate([part.resident_bytes for part in parts]),
        launches=np.concatenate([part.launches for part in parts]),
    )


def _unit_figures(unit: UnitSpec, joined: _Joined, position: int) -> list[tuple[str, Figure]]:
    """Return the constants of a unit that the samples depend on."""
    steps, owner = joined.steps[position]
    if not len(owner) and position:
        return []
    computed = {WORK_KINDS[kind] for kind in np.unique(steps.kind[steps.flops > 0])}
    named = [(name, getattr(unit, name)) for name in UNIT_CONSTANTS if name != "segment_overhead_ms"]
    if position:
        named = [(name, figure) for name, figure in named if name != "call_overhead_ms"]
    if joined.begun[position].any():
        named.append(("segment_overhead_ms", unit.segment_overhead_ms))
    return named + [(f"rates.{item.work}", item.ratio) for item in unit.rates if item.work in computed]
