"""`benchmarks.further_texts`: how rows are compared and chosen."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.further_texts import ALONE, CHOSEN, ROWS, compared, markdown
from compare.splits import METRICS

SUMMED, MEANS = [row for row in ROWS if row != ALONE]


def split_of(seed: int, best: str) -> tuple[np.ndarray, dict]:
    """Four test products; on valid `best` has the largest sum, but for the title alone."""
    rng = np.random.default_rng(seed)
    rows = {
        row: ({m: rng.random(4) for m in METRICS}, {best: 2.0, ALONE: 3.0}.get(row, 1.0))
        for row in ROWS
    }
    return np.array(["a", "b", "c", f"d{seed}"]), rows


def test_the_choice_is_made_per_split_on_valid_alone():
    found = [split_of(0, SUMMED), split_of(1, MEANS)]
    table = compared(found)
    assert table["chosen"] == [SUMMED, MEANS]
    for metric in METRICS:
        each = [found[0][1][SUMMED][0][metric].mean(), found[1][1][MEANS][0][metric].mean()]
        mean, spread = table["rows"][CHOSEN][metric]
        assert mean == pytest.approx(np.mean(each), abs=1e-4)
        assert spread == pytest.approx(np.std(each, ddof=1), abs=1e-4)
        alone = [rows[ALONE][0][metric].mean() for _, rows in found]
        lead, _, won = table["leads"][CHOSEN][metric]
        assert lead == pytest.approx(np.mean(each) - np.mean(alone), abs=1e-4)
        assert won == sum(a > b for a, b in zip(each, alone))


def test_the_table_has_a_line_per_row_and_all_columns():
    lines = markdown(compared([split_of(0, SUMMED), split_of(1, SUMMED)]))
    assert len(lines) == 2 + len(ROWS) + 1
    assert {line.count("|") for line in lines} == {2 + 2 * len(METRICS)}
