"""Hierarchical model of block and network times: one posterior for constants, block table and what they miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

import numpy as np

from latency_models.effects import AloneRows, Effects, Group, NetworkRows, NetworkShape
from latency_models.gaussian import (
    NORMAL_90,
    OUTLIER_WEIGHT,
    STUDENT_SD,
    Gaussian,
    VarianceComponent,
    condition,
    condition_above,
    fit_variances,
    student_weights,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

# Expected spread of each family of effects before there are data: standard deviations of logarithms, ``extra_kind`` as
# a share of the typical block. They decide only where the profile is too small to, see ``gaussian.fit_variances``; on a
# recorded host profile, halving or tripling any of them moved the error of unseen networks by less than 0.02 %.
_TYPICAL = {
    "kind": 0.3,
    "block": 0.2,
    "unit_kind": 0.2,
    "unit_block": 0.1,
    "os": 0.1,
    "os_kind": 0.03,
    "context_kind": 0.05,
    "extra_kind": 0.05,
    "deviation": 0.02,
    "noise": 0.02,
}
_ALONE = ("kind", "block", "unit_kind", "unit_block", "os", "os_kind")
_WITHIN = ("context_kind", "extra_kind", "deviation")
# Wide: what all blocks do otherwise within networks than alone; overhead, and time for all weights, in typical blocks.
_CONTEXT_SD = 0.1
_OVERHEAD_BLOCKS = 3.0
_ROUNDS = 8
# A block's time is known no better than this from any number of samples.
_LEAST_BLOCK_SD = 0.005
# A call that was stopped took its limit within this share.
_LIMIT_SD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """Measured time of one block alone; ``sd_ratio`` is its standard error as a share of it.

    With ``exceeded`` it was stopped at ``time_ms`` and would have taken longer; likewise for networks.
    """

    signature: str
    group: Group
    time_ms: float
    sd_ratio: float = 0.0
    exceeded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTime:
    """Measured time of one call of a whole network; ``sd_ratio`` is what is known of its error beforehand."""

    subject: str
    shape: NetworkShape
    group: Group
    time_ms: float
    sd_ratio: float = 0.0
    exceeded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrior:
    """What is known before measuring: the roofline's 90 % factor, the time of an empty call, a network's weights."""

    factor: float
    call_overhead_ms: float
    weights_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Unknowns after the measurements.

    Attributes:
        effects: What the unknowns are.
        unknowns: Their distribution, normal around the best fit.
        spreads: Standard deviation of each family of effects.
        noise_ratio: Standard deviation of a whole network around the sum of its blocks; of normal noise that leaves
            the same 5 % either side as the fitted Student noise.
        block_scores: For each measured block the absolute log error of its prediction from all the others.
        outliers: Subjects that were given little weight.
    """

    effects: Effects
    unknowns: Gaussian
    spreads: Mapping[str, float]
    noise_ratio: float
    block_scores: tuple[float, ...] = ()
    outliers: tuple[str, ...] = ()

    def network_ms(self, networks: Sequence[tuple[NetworkShape, Group]]) -> tuple[FloatArray, FloatArray]:
        """Return the networks' expected times (N,) and the derivatives of their logarithms (N, D)."""
        times, rows = NetworkRows(self.effects, networks).times_ms(self.unknowns.mean)
        return times, rows / times[:, None]

    def alone_rows(self, items: Sequence[tuple[str, Group]]) -> FloatArray:
        """Return the derivatives of the logarithms of the times of blocks measured alone, (N, D)."""
        return AloneRows(self.effects, items).log_times(self.unknowns.mean)[1]

    def block_ms(self, items: Sequence[tuple[str, Group]]) -> FloatArray:
        """Return the expected times of blocks within networks, without their share of weights, (N,)."""
        if not items:
            return np.zeros(0)
        mean = self.unknowns.mean
        logs = self.effects.context_rows(items) @ mean
        logs += [self.effects.prior_log_ms(name, group.compute_unit) for name, group in items]
        return np.exp(logs) + [self.extra_ms(self.effects.known[name].kind, group) for name, group in items]

    def extra_ms(self, kind: str, group: Group) -> float:
        """Return what a block of ``kind`` takes within networks beyond its scaled time alone."""
        own = self.value("extra_kind", kind) if self.effects.has("extra_kind", kind) else 0.0
        return self.system_factor(group) * (self.value("extra") + own)

    def overhead_ms(self, group: Group) -> float:
        """Return the time of a call that no block accounts for."""
        own = self.value("unit_overhead", group.compute_unit) if self.effects.units else 0.0
        return self.system_factor(group) * (self.value("overhead") + own)

    def system_factor(self, group: Group) -> float:
        """Return how much slower the group's OS version makes everything."""
        return float(np.exp(self.effects.system_row(group) @ self.unknowns.mean))

    def prior_scale(self, kind: str, group: Group) -> float:
        """Return the factor from prior time to time within networks for a block of ``kind`` never seen."""
        names = [("device",), ("context",), ("kind", kind), ("context_kind", kind)]
        names += [("unit", group.compute_unit), ("unit_kind", group.compute_unit, kind)]
        names += [("os", group.os_build), ("os_kind", group.os_build, kind)]
        return float(np.exp(sum(self.value(*name) for name in names if self.effects.has(*name))))

    def value(self, *effect: str) -> float:
        """Return the mean of one effect."""
        return float(self.unknowns.mean[self.effects.index(*effect)])


def fit_posterior(
    effects: Effects,
    blocks: Sequence[BlockTime],
    networks: Sequence[NetworkTime],
    prior: DevicePrior,
) -> Posterior:
    """Infer the unknowns from blocks measured alone and whole networks, with the spreads of all effects.

    First the blocks, then the networks, both by Gauss-Newton steps, each with the spreads and the noise of largest
    marginal likelihood; the networks also with Student's weights, for them and for what blocks do otherwise within
    networks than alone. Measurements that were stopped at a limit count as lying above it.
    """
    alone = fit_blocks(effects, blocks, prior)
    return add_networks(alone, networks)


def fit_blocks(effects: Effects, blocks: Sequence[BlockTime], prior: DevicePrior) -> Posterior:
    """Infer what blocks measured alone say; ``add_networks`` goes on from it."""
    timed = [block for block in blocks if not block.exceeded]
    stopped = [block for block in blocks if block.exceeded]
    families = {name: index for name, index in effects.families().items() if name in _ALONE}
    wide = [effects.index("device"), effects.index("call"), *(effects.index("unit", unit) for unit in effects.units)]
    typical_ms = _typical_ms(effects, timed)
    # A block alone pays for a call, so no call takes longer than the shortest of them, whatever the prior says.
    shortest_ms = min((block.time_ms for block in timed), default=prior.call_overhead_ms)
    prior = replace(prior, call_overhead_ms=min(prior.call_overhead_ms, 0.5 * shortest_ms))
    spreads = dict(_TYPICAL)
    start = unknowns = _prior(effects, prior, spreads, typical_ms=typical_ms)
    rows_of = AloneRows(effects, [(block.signature, block.group) for block in timed])
    noise = _block_noise(timed)
    rows, residuals = np.zeros((0, len(effects))), np.zeros(0)
    for _ in range(_ROUNDS if timed else 0):
        logs, rows = rows_of.log_times(unknowns.mean)
        residuals = np.log([block.time_ms for block in timed]) - logs + rows @ (unknowns.mean - start.mean)
        fixed = rows[:, wide] @ start.covariance[np.ix_(wide, wide)] @ rows[:, wide].T + np.diag(noise)
        components = [
            VarianceComponent(name=name, gram=rows[:, index] @ rows[:, index].T, typical_sd=_TYPICAL[name])
            for name, index in families.items()
        ]
        spreads |= fit_variances(residuals, fixed, components)
        start = _prior(effects, prior, spreads, typical_ms=typical_ms)
        unknowns = condition(start, rows, residuals + rows @ start.mean, noise)
    covariance = rows @ start.covariance @ rows.T + np.diag(noise)
    return Posterior(
        effects=effects,
        unknowns=_above_limits(effects, unknowns, stopped),
        spreads=spreads,
        noise_ratio=STUDENT_SD * spreads["noise"],
        block_scores=_left_out_scores([block.signature for block in timed], residuals, covariance),
    )


def _above_limits(effects: Effects, unknowns: Gaussian, stopped: Sequence[BlockTime]) -> Gaussian:
    if not stopped:
        return unknowns
    logs, rows = AloneRows(effects, [(block.signature, block.group) for block in stopped]).log_times(unknowns.mean)
    limits = np.log([block.time_ms for block in stopped]) - logs + rows @ unknowns.mean
    return condition_above(unknowns, rows, limits, _block_noise(stopped))


def _block_noise(blocks: Sequence[BlockTime]) -> FloatArray:
    sds = [_LIMIT_SD if block.exceeded else max(block.sd_ratio, _LEAST_BLOCK_SD) for block in blocks]
    noise: FloatArray = np.array(sds, dtype=float) ** 2
    return noise


def _typical_ms(effects: Effects, blocks: Sequence[BlockTime]) -> float:
    times = [block.time_ms for block in blocks]
    return float(np.median(times or [ms for block in effects.known.values() for _, ms in block.prior_ms]))


def _prior(effects: Effects, prior: DevicePrior, spreads: Mapping[str, float], *, typical_ms: float) -> Gaussian:
    mean, sd = np.zeros(len(effects)), np.zeros(len(effects))
    for name, index in effects.families().items():
        sd[index] = spreads.get(name, 0.0)
    wide = log(prior.factor) / NORMAL_90  # the factor holds nine of ten devices
    sd[effects.index("device")] = wide
    overhead_sd = _OVERHEAD_BLOCKS * max(typical_ms, prior.call_overhead_ms)
    for unit in effects.units:
        sd[effects.index("unit", unit)] = wide
        sd[effects.index("unit_overhead", unit)] = overhead_sd
    sd[effects.index("context")] = _CONTEXT_SD
    mean[effects.index("call")] = sd[effects.index("call")] = prior.call_overhead_ms
    sd[effects.index("extra")] = _CONTEXT_SD * typical_ms
    mean[effects.index("overhead")] = prior.call_overhead_ms
    sd[effects.index("overhead")] = overhead_sd
    sd[effects.index("weights")] = _OVERHEAD_BLOCKS * typical_ms / prior.weights_mb
    sd[effects.families()["extra_kind"]] = spreads["extra_kind"] * typical_ms
    return Gaussian(mean=mean, covariance=np.diag(sd**2))


def _left_out_scores(subjects: Sequence[str], values: FloatArray, covariance: FloatArray) -> tuple[float, ...]:
    """Return for each subject the largest absolute error of its values predicted from all the others'.

    Source:
        Rasmussen and Williams (2006), equations 5.10 to 5.12, for several values at once.
    """
    if not len(values):
        return ()
    inverse = np.linalg.inv(covariance)
    solved = inverse @ values
    scores = []
    for subject in dict.fromkeys(subjects):
        own = [index for index, name in enumerate(subjects) if name == subject]
        scores.append(float(np.abs(np.linalg.solve(inverse[np.ix_(own, own)], solved[own])).max()))
    return tuple(scores)


def add_networks(alone: Posterior, networks: Sequence[NetworkTime]) -> Posterior:
    """Go on from ``fit_blocks`` with whole networks."""
    timed = [network for network in networks if not network.exceeded]
    fitted = _NetworkFit(alone, timed).run() if timed else alone
    stopped = [network for network in networks if network.exceeded]
    if not stopped:
        return fitted
    times, rows = fitted.network_ms([(network.shape, network.group) for network in stopped])
    limits = np.log([network.time_ms for network in stopped]) - np.log(times) + rows @ fitted.unknowns.mean
    noise = np.full(len(stopped), max(_LIMIT_SD, fitted.noise_ratio) ** 2)
    return replace(fitted, unknowns=condition_above(fitted.unknowns, rows, limits, noise))


class _NetworkFit:
    """Gauss-Newton with variances and Student's weights fitted anew in each round."""

    def __init__(self, alone: Posterior, networks: Sequence[NetworkTime]) -> None:
        self._alone = alone
        self._networks = networks
        self._rows = NetworkRows(alone.effects, [(network.shape, network.group) for network in networks])
        self._values = np.log([network.time_ms for network in networks])
        self._known_noise = np.array([network.sd_ratio**2 for network in networks])
        self._families = {name: index for name, index in alone.effects.families().items() if name in _WITHIN}
        variances = np.diag(alone.unknowns.covariance)
        self._shapes = {name: variances[index] / _TYPICAL[name] ** 2 for name, index in self._families.items()}
        self._base = alone.unknowns.covariance.copy()
        for index in self._families.values():
            self._base[index, index] = 0.0
        self._network_weights = np.ones(len(networks))
        self._block_weights = np.ones(len(self._families["deviation"]))

    def run(self) -> Posterior:
        """Return the posterior."""
        unknowns = self._alone.unknowns
        spreads = dict(self._alone.spreads)
        for _ in range(_ROUNDS):
            times, rows = self._rows.times_ms(unknowns.mean)
            rows = rows / times[:, None]
            target = self._values - np.log(times) + rows @ unknowns.mean
            spreads |= self._spreads(rows, target)
            noise = spreads["noise"] ** 2 / self._network_weights + self._known_noise
            unknowns = condition(self._prior(spreads), rows, target, noise)
            self._reweigh(unknowns, rows, target, spreads)
        return replace(
            self._alone,
            unknowns=unknowns,
            spreads=spreads,
            noise_ratio=STUDENT_SD * spreads["noise"],
            outliers=self._outliers(),
        )

    def _spreads(self, rows: FloatArray, target: FloatArray) -> Mapping[str, float]:
        components = [
            VarianceComponent(
                name=name,
                gram=(rows[:, index] * self._shape(name)) @ rows[:, index].T,
                typical_sd=_TYPICAL[name],
            )
            for name, index in self._families.items()
        ]
        noise = np.diag(1.0 / self._network_weights)
        components.append(VarianceComponent(name="noise", gram=noise, typical_sd=_TYPICAL["noise"]))
        fixed = rows @ self._base @ rows.T + np.diag(self._known_noise)
        return fit_variances(target - rows @ self._alone.unknowns.mean, fixed, components)

    def _shape(self, family: str) -> FloatArray:
        """Variances of a family's members where the family's spread is 1."""
        shape = self._shapes[family]
        return shape / self._block_weights if family == "deviation" else shape

    def _prior(self, spreads: Mapping[str, float]) -> Gaussian:
        covariance = self._base.copy()
        for name, index in self._families.items():
            covariance[index, index] = spreads[name] ** 2 * self._shape(name)
        return Gaussian(mean=self._alone.unknowns.mean, covariance=covariance)

    def _reweigh(self, unknowns: Gaussian, rows: FloatArray, target: FloatArray, spreads: Mapping[str, float]) -> None:
        errors = target - rows @ unknowns.mean
        noise = spreads["noise"] ** 2 + self._known_noise
        self._network_weights = student_weights(errors**2 + unknowns.variance_of(rows), noise)
        index = self._families["deviation"]
        squares = unknowns.mean[index] ** 2 + np.diag(unknowns.covariance)[index]
        self._block_weights = student_weights(squares, spreads["deviation"] ** 2 * self._shapes["deviation"])

    def _outliers(self) -> tuple[str, ...]:
        found = [
            network.subject
            for network, weight in zip(self._networks, self._network_weights, strict=True)
            if weight < OUTLIER_WEIGHT
        ]
        names = self._alone.effects.names
        index = self._families["deviation"]
        found += [names[i][1] for i, w in zip(index, self._block_weights, strict=True) if w < OUTLIER_WEIGHT]
        return tuple(found)
