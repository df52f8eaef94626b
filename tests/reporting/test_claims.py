"""Verdicts on the paper's claims."""

from __future__ import annotations

import pytest

from mufin.reporting import claims

METRICS = ("P@1", "P@5", "R@10", "tail R@10")


def row(mean: float, spread: float = 0.0, seeds: int = 3) -> claims.Row:
    return claims.Row("X", {m: [mean, spread] for m in METRICS}, seeds)


@pytest.mark.parametrize(
    "winner, loser, verdict",
    [
        (row(10, 0.3), row(9, 0.4), claims.SHOWS),
        (row(9, 0.3), row(10, 0.4), claims.NOT),
        (row(10, 0.3), row(9.6, 0.4), claims.WITHIN),
        (row(10, seeds=1), row(9, seeds=1), claims.LEANS),
        (row(9, seeds=1), row(10, seeds=1), claims.AGAINST),
        (row(10, 0.5), row(9, seeds=1), claims.SHOWS),
    ],
)
def test_a_claim_shows_where_the_difference_exceeds_the_spread(winner, loser, verdict):
    assert claims.judge(winner, loser, "P@1")[0] == verdict


def verdicts(rows: dict[str, claims.Row], baselines: list[str]) -> dict[str, str]:
    return {claim.text: claim.verdict for claim in claims.compared(rows, baselines)}


def test_claims_about_absent_rows_were_not_run():
    said = verdicts({"mufin": row(10), "no_hard_positives": row(5)}, ["mach"])
    assert said["MUFIN is better than mach."] == claims.NOT_RUN
    assert said["Without cross-attention (no A_C) it is worse."] == claims.NOT_RUN


def test_sampling_is_compared_with_soft_triplets_where_there_are_any():
    rows = {"mufin": row(10), "no_hard_positives": row(5)}
    assert verdicts(rows, [])["Hard positives help."] == claims.SHOWS
    assert verdicts(rows | {"soft_triplet": row(4)}, [])["Hard positives help."] == claims.NOT


def test_bins_are_won_only_where_mufin_is_ahead_in_all():
    titles, names = {"bonsai": "Bonsai"}, ["bonsai", "xt"]
    won = claims.in_all_bins({"mufin": [2, 2], "bonsai": [1, 1]}, titles, names)
    lost = claims.in_all_bins({"mufin": [2, 2], "bonsai": [1, 3]}, titles, names)
    assert won.verdict == claims.SHOWS and lost.verdict == claims.NOT
    assert lost.figures == ["Bonsai: not behind MUFIN in bin 2"]
    assert claims.in_all_bins({"mufin": [2, 2]}, titles, names).verdict == claims.NOT_RUN


def test_categories_are_won_where_mufin_is_ahead_in_almost_all():
    titles, figures = {"bonsai": "Bonsai"}, {"mufin": [2, 2, 2, 2, 0], "bonsai": [1] * 5}
    won = claims.in_most_categories(figures, titles, ["bonsai"])
    assert won.verdict == claims.SHOWS and "4 of 5" in won.figures[0]
    figures["mufin"][0] = 0
    assert claims.in_most_categories(figures, titles, ["bonsai"]).verdict == claims.NOT


def test_a_study_has_the_verdicts_of_figures_and_networks():
    table = [
        {"row": "mufin", "title": "MUFIN", "metrics": row(9).metrics, "seeds": [0, 1]},
        {"row": "xt", "title": "XT", "metrics": {}, "seeds": []},
    ]
    said = claims.of_study(table, ["xt"], {}, {}, None, (30.0, 10.0))
    by_text = {claim.text: claim for claim in said}
    assert by_text["MUFIN is better than xt."].verdict == claims.NOT_RUN
    assert by_text["Classifiers of labels of one category lie close together."].holds
    assert claims.tally(said) == f"shows: 1; not run: {len(said) - 1}"
