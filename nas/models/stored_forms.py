"""Forms of stored weights whose rounding ``nas.models.quantised`` knows; without torch, for checks of a YAML."""

from __future__ import annotations

from typing import Literal, get_args

# Of ``latency_models.devices.WeightForm``.
StoredForm = Literal["linear", "palettised"]
STORED_FORMS: tuple[str, ...] = get_args(StoredForm)
