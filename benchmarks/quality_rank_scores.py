"""How well estimators rank what was trained fully: Kendall's tau, Spearman, regret, and what the truth allows."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import kendalltau, rankdata, spearmanr

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

DRAWS, COVERAGE, TOP = 2000, 0.9, 5
TARGET_TAU, TARGET_SHARE = 0.7, 0.05
MANY_LAYERS = 3


def verdicts(
    trained: Sequence[dict[str, Any]],
    estimates: Sequence[dict[str, Any]],
    *,
    once: Mapping[str, float],
    candidates: int,
    combined: Mapping[str, Sequence[str]] | None = None,
    unseen: Collection[int] = (),
) -> dict[str, Any]:
    """Return one row an estimator and set, the best first, what is recommended, and what is known of the truth.

    Recommended is the affordable single estimator with the highest tau on the architectures for tuning (``rows``). How
    good it is, its row in ``validation`` says, whose architectures had no part in the choice.

    Args:
        trained: Lines of ``truth.jsonl``.
        estimates: Lines of ``estimates.jsonl``.
        once: CPU seconds that an estimator pays once.
        candidates: Of a search, over which these are spread.
        combined: Estimators whose ranks are averaged to one more estimator, by its name.
        unseen: Indices of the architectures for validation.
    """
    combined = combined or {}
    by_index = defaultdict(list)
    for row in trained:
        by_index[row["index"]].append(row)
    full_s = fmean(row["training_cpu_s"] for row in trained)
    scores: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in estimates:
        scores[row["estimator"]][row["index"]] = row
    once = dict(once) | {name: sum(once.get(part, 0.0) for part in parts) for name, parts in combined.items()}
    tables = []
    for places in (set(by_index) - set(unseen), set(by_index) & set(unseen)):
        mine = {name: {place: row for place, row in given.items() if place in places} for name, given in scores.items()}
        for name, parts in combined.items():
            if all(part in mine for part in parts):
                mine[name] = _mean_ranks([mine[part] for part in parts])
        rows = [
            {"estimator": name, **_verdict_on(given, by_index), "once_cpu_s": once.get(name, 0.0)}
            for name, given in mine.items()
            if len(given) > 1
        ]
        for row in rows:
            row["share_each"] = row["each_cpu_s"] / full_s
            row["share_in_a_search"] = (row["each_cpu_s"] + row["once_cpu_s"] / candidates) / full_s
        tables.append(sorted(rows, key=lambda row: -row["tau"]))
    tuning, validation = tables
    fitting = [row for row in tuning if row["share_in_a_search"] <= TARGET_SHARE and row["estimator"] not in combined]
    return {
        "full_training_cpu_s": full_s,
        "recommended": fitting[0]["estimator"] if fitting else None,
        "noise_of_truth": noise(by_index),
        "rows": tuning,
        "validation": validation,
    }


def _verdict_on(mine: Mapping[int, dict[str, Any]], by_index: Mapping[int, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    places = sorted(mine)
    quality = np.array([fmean(-row["loss"] for row in by_index[place]) for place in places])
    steady = np.array([fmean(-row["jitter"] for row in by_index[place]) for place in places])
    accuracy = np.array([fmean(row["mean"] for row in by_index[place]) for place in places])
    layers = np.array([sum(1 for option in by_index[place][0]["options"] if option) for place in places])
    score = np.array([mine[place]["score"] for place in places])
    low, high = interval(score, quality)
    many = layers >= MANY_LAYERS
    return {
        "architectures": len(places),
        "tau": tau(score, quality),
        "tau_low": low,
        "tau_high": high,
        "spearman": float(spearmanr(score, quality).statistic),
        "tau_of_many_layers": tau(score[many], quality[many]),
        "tau_with_jitter": tau(score, steady),
        "tau_with_accuracy": tau(score, accuracy),
        "top5_regret_ratio": regret(score, quality),
        "each_cpu_s": fmean(row["cpu_s"] for row in mine.values()),
    }


def _mean_ranks(parts: Sequence[Mapping[int, dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    places = sorted(set.intersection(*(set(part) for part in parts)))
    ranks = sum(rankdata([part[place]["score"] for place in places]) for part in parts)
    cpu_s = [sum(part[place]["cpu_s"] for part in parts) for place in places]
    return {
        place: {"score": float(rank), "cpu_s": each} for place, rank, each in zip(places, ranks, cpu_s, strict=True)
    }


def tau(score: NDArray[np.float64], quality: NDArray[np.float64]) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(score, quality).statistic)


def interval(score: NDArray[np.float64], quality: NDArray[np.float64]) -> tuple[float, float]:
    """Percentiles of tau over architectures drawn with replacement."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(score), size=(DRAWS, len(score)))
    values = np.array([tau(score[draw], quality[draw]) for draw in draws])
    tails = 50.0 * (1.0 - COVERAGE)
    low, high = np.nanpercentile(values, [tails, 100.0 - tails])
    return float(low), float(high)


def regret(score: NDArray[np.float64], quality: NDArray[np.float64]) -> float:
    """What the best of the estimator's first five lacks to the best of all, as a share of the whole range."""
    first = np.argsort(-score, kind="stable")[:TOP]
    return float((quality.max() - quality[first].max()) / (quality.max() - quality.min()))


def noise(by_index: Mapping[int, Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Return what another seed of full training changes, and the tau that two full trainings would reach.

    ``tau_of_truth`` is the mean over draws of tau between the truth and the truth with the noise of one more training
    on top: about what an estimator would reach that was itself a full training.
    """
    pairs = [(rows[0]["loss"], rows[1]["loss"]) for _, rows in sorted(by_index.items()) if len(rows) > 1]
    losses = np.array([fmean(row["loss"] for row in rows) for _, rows in sorted(by_index.items())])
    if len(pairs) < 2:
        return {"replicates": float(len(pairs))}
    deviation = float(np.sqrt(np.mean([(first - second) ** 2 / 2 for first, second in pairs])))
    rng = np.random.default_rng(0)
    values = [tau(losses, losses + deviation * rng.normal(size=len(losses))) for _ in range(DRAWS)]
    return {
        "replicates": float(len(pairs)),
        "deviation_of_a_seed": deviation,
        "deviation_of_architectures": float(losses.std(ddof=1)),
        "tau_of_replicates": tau(*np.array(pairs).T),
        "tau_of_truth": float(np.mean(values)),
    }


def to_markdown(document: Mapping[str, Any]) -> str:
    """Return the table."""
    known, seeds = document["noise_of_truth"], document["seeds"]
    tuned, unseen = (
        max((row["architectures"] for row in document[name]), default=0) for name in ("rows", "validation")
    )
    lines = [
        "# Quality estimators against full training",
        "",
        f"Command: `{document['command']}`; seed {seeds['truth']} of the truth, {seeds['estimators']} of the "
        f"estimators. Architectures of `tiny`, trained fully from a common backbone: {tuned} on which the estimators "
        f"were made and chosen (tuning) and {unseen} others, looked at when the choice stood (validation). Quality is "
        "minus the loss on held-out clips (144 clips at 5 times); tau with jitter is against minus the jitter of "
        "generated clips.",
        "",
        f"Full training: {document['full_training_cpu_s']:.0f} CPU s an architecture. Costs of estimators are CPU time "
        "of one thread: what is paid once, what each candidate costs, and the share of full training of a candidate "
        f"when what is paid once is spread over the {document['candidates_of_a_search']} candidates of a search.",
        "",
    ]
    if "tau_of_truth" in known:
        lines += [
            f"Another seed of full training changes its loss by {known['deviation_of_a_seed']:.4f} (standard deviation "
            f"from {known['replicates']:.0f} architectures trained twice; tau between the two trainings "
            f"{known['tau_of_replicates']:.2f}), architectures differ by {known['deviation_of_architectures']:.4f}. An "
            f"estimator as good as another full training would reach a tau of about {known['tau_of_truth']:.2f}.",
            "",
        ]
    direction = fmean(row["direction"] for row in document["truth"])
    lines += [
        f"After this little training clips move as their caption says in {direction:.0%} of cases (chance: 25%), "
        "so that attribute accuracy tells no architecture from another; tau with it is in the JSON file only.",
        "",
        f"Not run: {', '.join(document['not_run']) or 'none'}.",
        "",
    ]
    lines += [
        _verdict(document),
        "",
        "Batch sizes, times of the loss and sums with proxies were tried on the architectures for tuning, and means of "
        "ranks put together: the second table flatters. The first is of architectures that nothing was fitted to.",
        "",
    ]
    for title, name in (("Validation", "validation"), ("Tuning", "rows")):
        lines += [f"## {title}", "", *_table(document[name]), ""]
    return "\n".join(lines[:-1]) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = (
        "estimator", f"tau ({COVERAGE:.0%} interval over architectures)", "Spearman",
        f"tau, {MANY_LAYERS} layers or more", "tau with jitter", "top-5 regret", "once, CPU s", "each, CPU s",
        "each alone, share", "share in a search",
    )  # fmt: skip
    return [
        f"| {' | '.join(heads)} |",
        "| --- " * len(heads) + "|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]


def _verdict(document: Mapping[str, Any]) -> str:
    best = document["recommended"]
    chosen = next((row for row in document["rows"] if row["estimator"] == best), None)
    if chosen is None:
        return f"No estimator costs {TARGET_SHARE:.0%} or less."
    text = (
        f"Recommended: **{best}**, on the architectures for tuning the highest tau ({chosen['tau']:.2f}) of a single "
        f"estimator at no more than {TARGET_SHARE:.0%} of full training in a search of "
        f"{document['candidates_of_a_search']}. "
    )
    row = next((row for row in document["validation"] if row["estimator"] == best), None)
    if row is None:
        return f"{text}It was not validated."
    reached = "reached" if row["tau"] >= TARGET_TAU else "**missed**"
    return (
        f"{text}On those for validation its tau is **{row['tau']:.2f}** ({COVERAGE:.0%} interval {row['tau_low']:.2f} "
        f"to {row['tau_high']:.2f}) at {row['share_in_a_search']:.1%} of the cost: the aim of {TARGET_TAU} is "
        f"{reached}."
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["estimator"],
        f"{row['tau']:.2f} ({row['tau_low']:.2f} to {row['tau_high']:.2f})",
        f"{row['spearman']:.2f}",
        f"{row['tau_of_many_layers']:.2f}",
        f"{row['tau_with_jitter']:.2f}",
        f"{row['top5_regret_ratio']:.1%}",
        f"{row['once_cpu_s']:.0f}",
        f"{row['each_cpu_s']:.2f}",
        f"{row['share_each']:.1%}",
        f"{row['share_in_a_search']:.1%}",
    ]
