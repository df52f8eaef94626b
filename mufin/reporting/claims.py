"""The paper's claims, each beside the figures of this run: does it show here (MUFIN Sec. 4, Tables 2 and 4, Figs. 3 to 6)?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mufin.reporting.movement import Movement

SHOWS, WITHIN, NOT = "shows", "within the spread", "does not show here"
LEANS, AGAINST, NOT_RUN = "points this way, one seed", "does not show here, one seed", "not run"

Metrics = dict[str, list[float]]  # metric -> [mean, standard deviation over seeds]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the comparison, as far as claims go."""

    title: str
    metrics: Metrics
    seeds: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What the paper says, the verdict, and the figures that it rests on."""

    text: str
    verdict: str
    figures: list[str]

    @property
    def holds(self) -> bool:
        return self.verdict in (SHOWS, LEANS)

    @property
    def fails(self) -> bool:
        return self.verdict in (NOT, AGAINST)


GENERAL = ("P@1", "P@5", "R@10")
COMPARED = (  # claim, the row that should win, the row that should lose, metrics: the first one decides
    ("Hard positives help.", "triplet", "no_hard_positives", GENERAL),
    ("Hard positives and hard negatives together help.", "triplet", "no_hard_negatives", GENERAL),
    (
        "Hard negatives help where positives are drawn at random.",
        "no_hard_positives",
        "no_hard_negatives",
        GENERAL,
    ),
    (
        "After Module I, retrieval over bags of embeddings beats one vector a label.",
        "module_1_bag",
        "module_1_vec",
        GENERAL,
    ),
    ("The ranker of Modules III and IV adds to Module I.", "mufin", "module_1_bag", GENERAL),
    ("Concatenation in place of cross-attention (ConCat) is worse.", "mufin", "concat", GENERAL),
    ("Without self-attention (no A_S) it is worse.", "mufin", "no_a_s", GENERAL),
    ("Without cross-attention (no A_C) it is worse.", "mufin", "no_a_c", GENERAL),
    ("Without free vectors (alpha = 1) it is worse over all labels.", "mufin", "alpha_1", GENERAL),
    (
        "Without free vectors (alpha = 1) it is better on rare labels.",
        "alpha_1",
        "mufin",
        ("tail R@10",),
    ),
    (
        "A score that treats rare and popular labels differently (the paper's wish) wins on rare labels.",
        "mufin_rare_and_popular",
        "mufin_fixed",
        ("tail R@10", "P@1"),
    ),
    ("Both modalities beat text alone.", "mufin", "text_only", GENERAL),
    ("Both modalities beat pictures alone.", "mufin", "image_only", GENERAL),
    ("MUFIN beats CLIP in its place.", "mufin", "clip", GENERAL),
    ("MUFIN beats VisualBERT in its place.", "mufin", "visualbert", GENERAL),
)


def judge(winner: Row, loser: Row, metric: str) -> tuple[str, str]:
    """The verdict of `winner` > `loser` in one metric, and the figures as text.

    The difference counts where it exceeds the spread, sqrt(s1^2 + s2^2) of the two deviations over seeds. With one seed
    of each no spread is known, and the verdict says so.
    """
    (a, s), (b, t) = winner.metrics[metric], loser.metrics[metric]
    gap, spread, known = a - b, math.hypot(s, t), max(winner.seeds, loser.seeds) > 1
    if not known:
        verdict = LEANS if gap > 0 else AGAINST
    else:
        verdict = WITHIN if abs(gap) <= spread else SHOWS if gap > 0 else NOT
    text = f"{metric} {a:.2f} against {b:.2f}: {signed(gap)}" + (
        f", spread {spread:.2f}" if known else ""
    )
    return verdict, text


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def compared(rows: dict[str, Row], rivals: list[str]) -> list[Claim]:
    """Every claim about two rows; `rivals` are the names of the text rivals of the table, run or not."""
    pairs = [
        *COMPARED,
        *(
            (
                f"MUFIN beats {rows[name].title}." if name in rows else f"MUFIN beats {name}.",
                "mufin",
                name,
                GENERAL,
            )
            for name in rivals
        ),
    ]
    return [_claim(rows, *pair) for pair in pairs]


def _claim(
    rows: dict[str, Row], text: str, winner: str, loser: str, metrics: tuple[str, ...]
) -> Claim:
    if (
        winner == "triplet" and winner not in rows
    ):  # where MUFIN itself is trained by triplets with hard samples
        winner = "mufin"
    if (
        loser == "mufin_fixed" and loser not in rows
    ):  # where MUFIN itself predicts by the paper's score
        loser = "mufin"
    if missing := [name for name in (winner, loser) if name not in rows]:
        return Claim(text, NOT_RUN, [f"no figures of {' and '.join(missing)} here"])
    results = [judge(rows[winner], rows[loser], metric) for metric in metrics]
    return Claim(text, results[0][0], [figures for _, figures in results])


def tally(claims: list[Claim]) -> str:
    """How many claims have each verdict, in words."""
    verdicts = [c.verdict for c in claims]
    return "; ".join(
        f"{v}: {verdicts.count(v)}"
        for v in (SHOWS, LEANS, WITHIN, NOT, AGAINST, NOT_RUN)
        if v in verdicts
    )


def in_all_bins(bins: dict[str, list[float]], titles: dict[str, str], rivals: list[str]) -> Claim:
    """Fig. 4: MUFIN adds at least as much to R@10 as each rival in every bin of popularity; `bins` row -> means."""
    text = "MUFIN is better than the rivals in all bins of label popularity."
    others = [name for name in rivals if name in bins]
    if "mufin" not in bins or not others:
        return Claim(text, NOT_RUN, ["no figures of MUFIN or of any rival here"])
    figures, lost = [], False
    for name in others:
        where = [
            str(i + 1)
            for i, (own, other) in enumerate(zip(bins["mufin"], bins[name]))
            if own <= other
        ]
        lost |= bool(where)
        figures.append(
            f"{titles[name]}: "
            + (f"not ahead in bin {', '.join(where)}" if where else "behind MUFIN in every bin")
        )
    return Claim(text, NOT if lost else SHOWS, figures)


def in_most_categories(
    figures: dict[str, list[float]], titles: dict[str, str], rivals: list[str]
) -> Claim:
    """Table 6: MUFIN has the best P@5 in most categories; `figures` row -> P@5 of each category."""
    text = "MUFIN is best in almost all categories."
    others = [name for name in rivals if name in figures]
    if "mufin" not in figures or not others or len(figures["mufin"]) < 2:
        return Claim(text, NOT_RUN, ["no categories, or no figures of MUFIN or of any rival here"])
    best = [max((figures[name][i] for name in others)) for i in range(len(figures["mufin"]))]
    won = sum(own > other for own, other in zip(figures["mufin"], best))
    part = won / len(best)
    return Claim(
        text,
        SHOWS if part >= 0.8 else NOT,
        [
            f"ahead of {', '.join(titles[n] for n in others)} in {won} of {len(best)} categories "
            "(P@5; 'almost all' is read as 80%)"
        ],
    )


def moves_towards_relevant(moved: Movement | None) -> Claim:
    """Fig. 5c, over all test datapoints."""
    text = "Cross-attention moves a datapoint towards the classifiers of relevant labels more than of irrelevant ones."
    if moved is None:
        return Claim(
            text, NOT_RUN, ["no cross-attention, or no shortlist with both kinds of labels here"]
        )
    return Claim(
        text,
        SHOWS if moved.shows else NOT,
        [
            f"relevant minus irrelevant {signed(moved.difference, 4)}, standard error {moved.error:.4f} over "
            f"{moved.datapoints} datapoints (it shows above two standard errors)"
        ],
    )


def categories_cluster(share: float | None, chance: float | None) -> Claim:
    """Fig. 6, as a number."""
    text = "Classifiers of labels of one category lie together."
    if share is None:
        return Claim(text, NOT_RUN, ["no categories here"])
    return Claim(
        text,
        SHOWS if share > 2 * chance else NOT,
        [
            f"{share:.1f}% of the 10 nearest classifiers have the label's category, {chance:.1f}% by chance "
            "(it shows above twice chance)"
        ],
    )
