"""What ``nas show`` prints under a front: limits, the probability of keeping them, further devices, levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.units import budget_words, probability

if TYPE_CHECKING:
    from nas.core.cost import CostEstimate, DeviceCost
    from nas.runs.front import FrontFile


def chance_head(front: FrontFile) -> str:
    """Return the heads of the columns that hold probabilities, one for each device with limits."""
    one = len(front.chances) == 1
    return "".join(
        f"{'P(keeps it)' if one else f'P({item.device})':>{_width(item.device, one)}}" for item in front.chances
    )


def chance_cells(digest: str, front: FrontFile) -> str:
    """Return a member's probabilities, those that allow for the selection where they are known."""
    one, cells = len(front.chances) == 1, []
    for item in front.chances:
        found = item.of(digest)
        text = "-" if found is None else probability(found.known)
        cells.append(f"{text:>{_width(item.device, one)}}")
    return "".join(cells)


def limit_lines(front: FrontFile) -> list[str]:
    """Return the limits of every device, and what the probabilities rest on."""
    words = [("limits", budget_words(front.budget))]
    words += [(f"limits on {item.device}", budget_words(item)) for item in front.budget.devices]
    lines = [f"{name}: {text}" for name, text in words if text]
    for item in front.chances:
        after = any(member.after_selection is not None for member in item.members)
        allowing = ", allowing for the selection" if after else ""
        lines.append(f"P(keeps it) is of {item.device}'s limits on latency and memory together{allowing}: {item.basis}")
    return lines


def device_lines(front: FrontFile) -> list[str]:
    """Return a table of the members' costs for every further device, and of the latency over all."""
    if not front.members or not front.members[0].cost.devices:
        return []
    lines = [f"latency over all devices, which the search minimised: {_range_words(front)}"]
    for index, device in enumerate(front.members[0].cost.devices):
        lines.append(f"on {device.device} ({device.origin}, {device.predictor}):")
        lines.append(f"  {'network':<18}{'latency ms':>12}{'interval':>22}{'peak MB':>10}{'package MB':>12}")
        lines += [_device_row(member.architecture.digest, member.cost.devices[index]) for member in front.members]
    return lines


def level_lines(front: FrontFile) -> list[str]:
    """Return what each of several levels of quality judged."""
    return [
        f"quality level {number}: {level.estimator}, {level.fidelity}; price {level.price:g}, {level.complete} judged, "
        f"{level.failed} failed in {level.seconds:.1f} s"
        for number, level in enumerate(front.levels, start=1)
    ]


def cost_lines(cost: CostEstimate) -> list[str]:
    """Return what one network costs beyond latency, memory and parameters: its package, and further devices."""
    lines = [] if cost.package_mb is None else [f"package: {cost.package_mb:.2f} MB"]
    if cost.combined_ms is not None:
        lines.append(f"latency over all devices: {cost.combined_ms:.2f} ms")
    for device in cost.devices:
        time, space = device.latency_interval_ms, device.memory_interval_mb
        note = "" if device.in_domain else f"; outside the calibration: {device.domain_note or 'extrapolated'}"
        lines.append(
            f"  on {device.device}: {device.latency_ms:.2f} ms ({time.low:.2f} to {time.high:.2f}), "
            f"{device.peak_memory_mb:.2f} MB ({space.low:.2f} to {space.high:.2f}), {device.origin}: "
            f"{device.predictor}{note}"
        )
    return lines


def _range_words(front: FrontFile) -> str:
    found = [member.cost.objective_ms for member in front.members]
    return f"{min(found):.1f} to {max(found):.1f} ms"


def _device_row(digest: str, cost: DeviceCost) -> str:
    time = cost.latency_interval_ms
    package = "-" if cost.package_mb is None else f"{cost.package_mb:.2f}"
    ends = f"{time.low:.1f} to {time.high:.1f}"
    return f"  {digest:<18}{cost.latency_ms:>12.1f}{ends:>22}{cost.peak_memory_mb:>10.1f}{package:>12}"


def _width(device: str, one: bool) -> int:
    return 13 if one else len(device) + 5
