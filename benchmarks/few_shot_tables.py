"""Means over draws, then over devices, and their Markdown. pandas is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from few_shot_published import HELP, TASKS
from few_shot_runs import LEFT_OUT, METHODS, OURS_CHOSEN
from few_shot_scores import twin_ceiling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from devbench import Space

LABELS = {
    "ours_chosen": "ours, chosen networks",
    "ours_random": "ours, random networks",
    "gp_factors_chosen": "GP, factors + own features, chosen networks",
    "gp_factors": "GP, factors + own features",
    "gp": "GP, one-hot + aggregates",
    "source_ridge": "ridge on source latencies",
    "nearest": "nearest source device",
    "boosting": "gradient boosting",
    "additive": "additive table",
    "flops": "FLOPs-linear",
    "constant": "constant",
}
HELP_COUNT, TASK_COUNT = 10, 20  # networks that HELP and NASFLAT measure
ACCURACY = "Spearman / MAPE % / within 10 %"
INTERVAL = "90 % interval: mean coverage % / worst device / half-width %"
CHOICE = "choice under a budget: violations % / regret"
_DIGITS = 5  # of the figures by device: far below their spread over draws
_LIBRARIES = ("python", "numpy", "scipy", "scikit-learn", "pandas")
_CHOICES = ("choice_by_upper", "choice_by_median")


# Figures to reach, in this order of scores, as set for devices held out from the shared data: the best known before
# (literature and its simple improvements, see the published section), then the bar.
BARS = (
    ("nb201", 10, ACCURACY, "0.945 / 6.5 / 80", "0.952 / 5.8 / 83"),
    ("nb201", 20, ACCURACY, "0.957 / 5.1 / 87", "0.962 / 4.7 / 88.5"),
    ("fbnet", 10, ACCURACY, "0.958 / 3.2 / 92", "0.962 / 2.8 / 93.5"),
    ("anb", 10, ACCURACY, "0.97 / 7.3 / 74", "0.975 / 6.0 / 80"),
    ("nb201", 20, INTERVAL, "86 / 77 / 10", "88 to 92 / 83 / 10"),
    ("nb201", 20, CHOICE, "7 to 9 / 0.19", "3 / 0.25"),
)
JUDGED = ("ours_chosen", "ours_random", "gp_factors_chosen")


def device_means(cells: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per space, protocol, k, method and device: means over draws, and how many draws there were."""
    import pandas as pd

    table = pd.DataFrame([_flat(cell) for cell in cells])
    keys = ["space", "protocol", "k", "method", "group", "device"]
    means = table.groupby(keys).mean(numeric_only=True)
    means["draws"] = table.groupby(keys)["draw"].nunique()
    return means.drop(columns="draw").reset_index()


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    flat = {name: (np.nan if value is None else value) for name, value in cell.items() if name not in _CHOICES}
    for name in _CHOICES:
        for score, value in (cell.get(name) or {"violation_ratio": None, "regret": None}).items():
            flat[f"{name}_{score}"] = np.nan if value is None else value
    return flat


def method_means(devices: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per space, protocol, k and method: means over devices, and the worst device of each score."""
    entries = []
    for (space, protocol, k, method), rows in devices.groupby(["space", "protocol", "k", "method"]):
        worst = rows.loc[rows["spearman"].idxmin()]
        covered = rows.dropna(subset="coverage_ratio")
        least = covered.loc[covered["coverage_ratio"].idxmin()] if len(covered) else None
        entries.append(
            {
                "space": space,
                "protocol": protocol,
                "k": int(k),
                "method": method,
                "devices": len(rows),
                "draws": int(rows["draws"].min()),
                **{name: _finite(rows[name].mean()) for name in rows.columns if name.endswith(_AVERAGED)},
                "spearman_standard_error": _finite(rows["spearman"].sem()),
                "worst_spearman": {"device": worst["device"], "spearman": float(worst["spearman"])},
                "worst_coverage": None
                if least is None
                else {"device": least["device"], "coverage_ratio": float(least["coverage_ratio"])},
            }
        )
    order = {name: position for position, name in enumerate(METHODS)}
    return sorted(entries, key=lambda one: (one["space"], one["protocol"], one["k"], order[one["method"]]))


_AVERAGED = ("spearman", "_percent", "_ratio", "regret", "_cpu_s")


def ceilings(space: Space) -> dict[str, Any] | None:
    """Return the noise ceiling by pairs of equal networks, mean over devices; None where a space has no such pairs."""
    found = []
    for column, device in enumerate(space.devices):
        first, second = space.latency_ms[space.twins, column].T if len(space.twins) else np.empty((2, 0))
        both = np.isfinite(first) & np.isfinite(second)
        if both.sum() >= 20:  # fewer say nothing of a rank correlation
            found.append({"device": device.name, **twin_ceiling(first[both], second[both])})
    if not found:
        return None
    means = {
        name: float(np.mean([one[name] for one in found])) for name in ("spearman", "mape_percent", "within_10_ratio")
    }
    return {"devices": len(found), **means, "by_device": found}


def markdown(result: dict[str, Any]) -> str:
    """Return the report of a result."""
    lines = ["# Predictor accuracy on devices that were left out", "", *_preamble(result), "", *_figures(result)]
    for space in result["spaces"]:
        lines += ["", f"## {space}", ""]
        counts = sorted({one["k"] for one in result["methods"] if one["space"] == space})
        for k in counts:
            lines += [f"{k} measured networks", "", *_method_table(result, space, k), ""]
        lines += _ceiling_lines(result["ceilings"].get(space))
        for k in counts:
            lines += [*_device_table(result, space, k)]
    lines += ["", *_published(result), "", *_timings(result), *_notices(result)]
    return "\n".join(lines) + "\n"


def _preamble(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    tested = f"{settings['tested']} networks, drawn once per device" if settings["tested"] else "all other networks"
    return [
        f"Origin: measured by this program, {result['taken_at']}, on {result['host']['system']}, "
        f"{result['host']['processor']}; seed {settings['seed']}; versions: "
        + ", ".join(f"{name} {result['versions'][name]}" for name in _LIBRARIES)
        + ".",
        "",
        f"Data: {result['data']}; digest {settings['data'][:12]}. {result['protocol']} Every device is judged on "
        f"{tested}; source models see "
        f"{settings['source_networks']} networks of each source device. A figure is the mean over draws, then over "
        "devices; all methods get the same random networks, and 'chosen' ones pick theirs before anything is measured. "
        "Coverage and half-width are those of the 90 % interval. Violations are budgets exceeded by more than 5 %, "
        "regret is accuracy points lost on the others; a choice among the tested networks is bound by the 80 % "
        "one-sided upper end, in brackets by the point prediction.",
    ]


def _method_table(result: dict[str, Any], space: str, k: int) -> list[str]:
    lines = [
        "| method | devices x draws | Spearman (worst) | MAPE % | within 10 % | coverage % (worst) | half-width % "
        "| violations % | regret |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in result["methods"]:
        if (one["space"], one["k"], one["protocol"]) == (space, k, LEFT_OUT):
            lines.append(_method_line(one))
    return lines


def _figures(result: dict[str, Any]) -> list[str]:
    """The figures to reach beside what this run shows."""
    found = {(one["space"], one["k"], one["method"]): one for one in result["methods"] if one["protocol"] == LEFT_OUT}
    lines = [
        "Figures to reach; the second and third column are for other devices than this run's unless it is that of the "
        "held-out devices, so the peer in the last column says how hard these are.",
        "",
        "| score | best known before | bar | " + " | ".join(LABELS[name] for name in JUDGED) + " |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for space, k, score, before, bar in BARS:
        seen = [_figure(found.get((space, k, name)), score) for name in JUDGED]
        if any(seen):
            lines.append(f"| {space}, k={k}: {score} | {before} | {bar} | " + " | ".join(seen) + " |")
    return lines


def _figure(one: dict[str, Any] | None, score: str) -> str:
    if one is None:
        return ""
    if score == ACCURACY:
        return f"{one['spearman']:.3f} / {one['mape_percent']:.1f} / {_percent(one['within_10_ratio'])}"
    if score == INTERVAL:
        worst = one["worst_coverage"]["coverage_ratio"]
        return f"{_percent(one['coverage_ratio'])} / {_percent(worst)} / {_percent(one['half_width_ratio'])}"
    return f"{_percent(one['choice_by_upper_violation_ratio'])} / {_number(one['choice_by_upper_regret'])}"


def _method_line(one: dict[str, Any]) -> str:
    worst = one["worst_coverage"]
    coverage = "" if worst is None else f"{_percent(one['coverage_ratio'])} ({_percent(worst['coverage_ratio'])})"
    cells = [
        LABELS[one["method"]],
        f"{one['devices']} x {one['draws']}",
        f"{one['spearman']:.3f} ({one['worst_spearman']['spearman']:.3f})",
        f"{one['mape_percent']:.1f}",
        _percent(one["within_10_ratio"]),
        coverage,
        _percent(one["half_width_ratio"]),
        _pair(_percent(one["choice_by_upper_violation_ratio"]), _percent(one["choice_by_median_violation_ratio"])),
        _pair(_number(one["choice_by_upper_regret"]), _number(one["choice_by_median_regret"])),
    ]
    return "| " + " | ".join(cells) + " |"


def _ceiling_lines(ceiling: dict[str, Any] | None) -> list[str]:
    if ceiling is None:
        return []
    return [
        f"Noise ceiling from twin cells on {ceiling['devices']} devices (what the true mean would score against single "
        f"readings): Spearman {ceiling['spearman']:.3f}, MAPE {ceiling['mape_percent']:.1f} %, within 10 % "
        f"{_percent(ceiling['within_10_ratio'])} %.",
        "",
    ]


def _device_table(result: dict[str, Any], space: str, k: int) -> list[str]:
    rows = [
        one
        for one in result["devices"]
        if (one["space"], one["k"], one["protocol"], one["method"]) == (space, k, LEFT_OUT, OURS_CHOSEN)
    ]
    if not rows:
        return []
    lines = [
        f"By device, {LABELS[OURS_CHOSEN]}, k={k}:",
        "",
        "| device | draws | Spearman | MAPE % | within 10 % | coverage % | half-width % | in domain % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        values = [one["within_10_ratio"], one["coverage_ratio"], one["half_width_ratio"], one["in_domain_ratio"]]
        shares = " | ".join(_percent(value) for value in values)
        lines.append(
            f"| {one['device']} | {one['draws']} | {one['spearman']:.3f} | {one['mape_percent']:.1f} | {shares} |"
        )
    return [*lines, ""]


def _published(result: dict[str, Any]) -> list[str]:
    """Other predictors' printed figures beside ours on the same devices, where the data has them."""
    lines = [
        "## Published figures (Spearman)",
        "",
        "NASFLAT's device sets, 20 networks; origin `published`, from the plotting script of its repository. A set is "
        "rebuilt (`--tasks`) only where the data hold all its targets and at least half of its sources; test networks "
        "differ from the publication's, so rows are not one experiment.",
        "",
        "| set | NASFLAT | HELP | MultiPredict | ours, chosen (measured) | GP-factors, chosen (measured) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task in TASKS:
        ours, peer = (_task_mean(result, task.name, method) for method in (OURS_CHOSEN, "gp_factors_chosen"))
        lines.append(
            f"| {task.name} | {task.nasflat:.3f} | {task.help:.3f} | {task.multipredict:.3f} | {ours} | {peer} |"
        )
    lines += ["", "HELP's own tables, 10 networks; origin `published` (arXiv:2106.08630):", ""]
    lines += ["| space | device | HELP | ours, chosen (measured, own protocol) |", "| --- | --- | --- | --- |"]
    for space, figures in HELP.items():
        for device, figure in figures.items():
            lines.append(f"| {space} | {device} | {figure:.3f} | {_device_mean(result, space, device)} |")
    return lines


def _task_mean(result: dict[str, Any], task: str, method: str) -> str:
    found = [
        one for one in result["methods"] if (one["protocol"], one["method"], one["k"]) == (task, method, TASK_COUNT)
    ]
    return f"{found[0]['spearman']:.3f} ({found[0]['draws']} draws)" if found else "not in this data"


def _device_mean(result: dict[str, Any], space: str, device: str) -> str:
    wanted = (space, LEFT_OUT, device, OURS_CHOSEN, HELP_COUNT)
    for one in result["devices"]:
        if (one["space"], one["protocol"], one["device"], one["method"], one["k"]) == wanted:
            return f"{one['spearman']:.3f} ({one['draws']} draws)"
    return "not in this data"


def _timings(result: dict[str, Any]) -> list[str]:
    lines = [
        "## Time",
        "",
        "CPU seconds of one thread, median of three: fit at 20 networks and 10,000 predictions, after the one-off "
        "source models; the ratio is to the GP of the same run, which knows no source devices.",
        "",
        "| space | ours | GP-factors | GP | ours / GP | source models, once (sources) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in result["timings"]:
        cpu_s = one["cpu_s"]
        ours, peer = cpu_s.get("ours_random"), cpu_s.get("gp")
        ratio = f"{ours / peer:.2f}" if ours and peer else ""
        once = next((entry for entry in result["once"] if entry["space"] == one["space"]), None)
        models = f"{once['source_models_cpu_s']:.0f} s ({once['sources']})" if once else ""
        figures = " | ".join(_number(cpu_s.get(name)) for name in ("ours_random", "gp_factors", "gp"))
        lines.append(f"| {one['space']} | {figures} | {ratio} | {models} |")
    return lines


def _notices(result: dict[str, Any]) -> list[str]:
    return ["", "## Notices", "", *(f"- {line}" for line in result["notices"])] if result["notices"] else []


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100.0 * value:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _pair(first: str, second: str) -> str:
    return f"{first} ({second})" if first and second else first


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def as_records(devices: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of ``device_means`` as plain values, NaN as None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in devices.to_dict(orient="records")]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return int(value) if isinstance(value, int | np.integer) else _finite(round(float(value), _DIGITS))


def covered_spaces(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the spaces that have a result, in order of appearance."""
    return list(dict.fromkeys(one["space"] for one in entries))
