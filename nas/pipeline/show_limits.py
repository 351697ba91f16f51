"""What ``nas show`` prints of limits: the budget, the probability of keeping it, and further devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.units import budget_words

if TYPE_CHECKING:
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
        text = "-" if found is None else f"{found.known:.3f}"
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


def _width(device: str, one: bool) -> int:
    return 13 if one else len(device) + 5
