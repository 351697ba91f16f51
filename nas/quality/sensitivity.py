"""Removal sensitivity: what a slot's layer is worth, by the loss of a trained network that goes without it.

    score(x) = - loss(reference) + sum_l d_l[x_l] + sum_(l<m) e_lm[x_l, x_m]

d is the change of score when one slot alone is changed from the reference, e what two changed together change beyond
the sum of both. The reference is the empty network (what adding a layer brings) or the largest (what removing it or
putting another in its place costs). Pairs are measured for one option of a kind and hold for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal, cast

from nas.core.evaluation import Quality
from nas.core.protocols import SilentProgress
from nas.quality.held_out_loss import clip_losses, make_held_out_batch
from nas.training.data import make_latent_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.quality.supernet import Supernet
    from nas.training.stage import Kit
    from search_spaces.temporal import TemporalSpace

    Loss = Callable[[Sequence[int]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivities:
    """Changes of score against a reference, by slot and option.

    Attributes:
        reference: Options by slot.
        loss: Of the reference.
        single: ``single[slot][option]``; 0 for the reference's own option.
        pairs: By (first slot, second slot) and (first kind, second kind), beyond both singles; missing ones are 0.
        kinds: Kind of every option, by slot.
        evaluations: Losses that were measured.
    """

    reference: tuple[int, ...]
    loss: float
    single: tuple[tuple[float, ...], ...]
    pairs: dict[tuple[int, int], dict[tuple[str, str], float]]
    kinds: tuple[tuple[str, ...], ...]
    evaluations: int

    def score(self, options: Sequence[int]) -> float:
        """Score of a candidate, higher for better."""
        total = -self.loss + sum(row[option] for row, option in zip(self.single, options, strict=True))
        for (first, second), table in self.pairs.items():
            if options[first] != self.reference[first] and options[second] != self.reference[second]:
                total += table.get((self.kinds[first][options[first]], self.kinds[second][options[second]]), 0.0)
        return total


def measure_sensitivities(
    space: TemporalSpace, loss: Loss, *, reference: Sequence[int], pairs: bool = False
) -> Sensitivities:
    """Change every slot of ``reference`` to every other option, and with ``pairs`` two slots to two kinds at a time.

    Args:
        space: Gives slots and options.
        loss: Held-out loss of a path; lower is better.
        reference: Options by slot.
        pairs: Whether pairs are measured.
    """
    base, slots = tuple(reference), space.slots()
    whole = loss(base)
    kinds = tuple(tuple(str(option[f"{slot}.kind"]) for option in space.options(slot)) for slot in slots)

    def change(changed: dict[int, int]) -> float:
        return whole - loss([changed.get(place, option) for place, option in enumerate(base)])

    single = [
        tuple(0.0 if option == base[place] else change({place: option}) for option in range(len(kinds[place])))
        for place in range(len(slots))
    ]
    found: dict[tuple[int, int], dict[tuple[str, str], float]] = {}
    for first, second in combinations(range(len(slots)), 2) if pairs else ():
        found[first, second] = {
            (kinds[first][one], kinds[second][other]): change({first: one, second: other})
            - single[first][one]
            - single[second][other]
            for one in _one_of_each(kinds[first], base[first])
            for other in _one_of_each(kinds[second], base[second])
        }
    measured = 1 + sum(len(row) - 1 for row in single) + sum(len(table) for table in found.values())
    return Sensitivities(
        reference=base, loss=whole, single=tuple(single), pairs=found, kinds=kinds, evaluations=measured
    )


class SensitivityQuality:
    """Judges candidates by sums of sensitivities, at no cost once they are measured; meets ``QualityEstimator``."""

    name = "removal_sensitivity"

    def __init__(self, space: TemporalSpace, sensitivities: Sensitivities, *, fidelity: str) -> None:
        self._space = space
        self.sensitivities = sensitivities
        terms = "single and pairwise" if sensitivities.pairs else "single"
        self.fidelity = f"{terms} changes, {sensitivities.evaluations} losses of {fidelity}"

    def estimate(self, architecture: Architecture) -> Quality:
        """Sum of one candidate's changes; deterministic."""
        score = self.sensitivities.score(self._space.to_options(architecture))
        return Quality(score=score, estimator=self.name, fidelity=self.fidelity, metrics=(("predicted_loss", -score),))


def supernet_sensitivities(
    kit: Kit,
    *,
    reference: Literal["empty", "largest"],
    pairs: bool,
    seed: int,
    trained_steps: int,
    num_clips: int = 36,
    progress: Progress | None = None,
) -> SensitivityQuality:
    """The estimator of a trained supernet, by its loss on held-out clips made here."""
    supernet = cast("Supernet", kit.denoiser).eval()
    space, progress = supernet.space, progress or SilentProgress()
    clips = make_latent_clips(num_clips, codec=kit.own_codec, captions=kit.captions, seed=seed, split="held_out")
    batch = make_held_out_batch(clips, kit.captions, seed=seed)
    done = 0

    def loss(options: Sequence[int]) -> float:
        nonlocal done
        supernet.activate(options)
        done += 1
        progress.update(done, done, "removal sensitivity: losses")
        return float(clip_losses(supernet, batch).mean())

    base = space.to_options(space.largest() if reference == "largest" else space.smallest())
    found = measure_sensitivities(space, loss, reference=base, pairs=pairs)
    about = f"a supernet of {trained_steps} steps from the {reference} network on {num_clips} held-out clips"
    return SensitivityQuality(space, found, fidelity=about)


def _one_of_each(kinds: Sequence[str], reference: int) -> list[int]:
    """Return the last option of every kind, which is the widest, but never the reference itself."""
    last: dict[str, int] = {}
    for option, kind in enumerate(kinds):
        if option != reference:
            last[kind] = option
    return list(last.values())
