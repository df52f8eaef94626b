"""The rivals of MUFIN's Table 3 by name, with the paper's figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits import adde_o, csa_net, s_val, sce_net, ssvr, type_aware
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.scoring import Scorer
from mufin.baselines.outfits.training import Budget
from mufin.ragged import Lists

Fit = Callable[[Items, Lists, Questions, int, Budget], Scorer]


@dataclass(frozen=True, slots=True)
class Row:
    """One rival."""

    fit: Fit  # of items, outfits of train, questions of valid, seed and budget
    paper: float  # FITB accuracy on Polyvore-Disjoint in percent, as MUFIN's Table 3 has it
    inputs: str  # the group of Table 3
    note: str = ""  # what of the publication could not be built; '' if all could


ROWS: dict[str, Row] = {
    "ADDE-O": Row(
        adde_o.fit,
        60.53,
        "visual + textual",
        "outfits have no annotated attributes; colour and topic of the title stand in",
    ),
    "Type-aware": Row(type_aware.fit, 55.65, "visual + textual"),
    "SCE-Net average": Row(sce_net.fit, 53.67, "visual + textual"),
    "SSVR": Row(ssvr.fit, 51.5, "visual + textual"),
    "CSA-Net": Row(csa_net.fit, 59.26, "visual"),
    "S-VAL": Row(s_val.fit, 54.3, "visual"),
}
