"""The paper's claims, each with the figures of this run: does it show here?

MUFIN Sec. 4, Tables 2, 4 and 6, Figs. 4 to 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mufin.reporting.gain import Gains

SHOWS, WITHIN, NOT = "shows", "within the spread", "does not show here"
LEANS, AGAINST = "points this way, one seed", "does not show here, one seed"
NOT_RUN = "not run"
ALMOST_ALL = 0.8  # the part of the categories that "almost all" is read as

Metrics = dict[str, list[float]]  # metric -> [mean, standard deviation over seeds]


@dataclass(frozen=True, slots=True)
class Row:
    """What a claim needs of a row of the comparison."""

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
# Claim, the row that should win, the row that should lose, metrics: the first one decides.
COMPARED = (
    ("Hard positives help.", "soft_triplet", "no_hard_positives", GENERAL),
    (
        "Hard positives and hard negatives together help.",
        "soft_triplet",
        "no_hard_negatives",
        GENERAL,
    ),
    (
        "Hard negatives help where positives are drawn at random.",
        "no_hard_positives",
        "no_hard_negatives",
        GENERAL,
    ),
    (
        "After Module I, retrieval by bags is better than retrieval by one vector per label.",
        "module_1_bag",
        "module_1_vec",
        GENERAL,
    ),
    ("Modules III and IV (the ranker) improve on Module I.", "mufin", "module_1_bag", GENERAL),
    (
        "Concatenation in place of cross-attention (ConCat) is worse.",
        "published",
        "concat",
        GENERAL,
    ),
    ("Without self-attention (no A_S) it is worse.", "published", "no_a_s", GENERAL),
    ("Without cross-attention (no A_C) it is worse.", "published", "no_a_c", GENERAL),
    (
        "Without free vectors (alpha = 1) it is worse over all labels.",
        "published",
        "alpha_1",
        GENERAL,
    ),
    (
        "Without free vectors (alpha = 1) it is better on rare labels.",
        "alpha_1",
        "published",
        ("tail R@10",),
    ),
    (
        "A score that treats rare and popular labels differently is better on rare labels "
        "(the paper leaves it to future work).",
        "mufin_rare_and_popular",
        "mufin_fixed",
        ("tail R@10", "P@1"),
    ),
    ("Title and pictures are better than the title alone.", "mufin", "text_only", GENERAL),
    ("Title and pictures are better than pictures alone.", "mufin", "image_only", GENERAL),
    ("MUFIN's encoders are better than CLIP's.", "mufin", "clip", GENERAL),
    ("MUFIN's encoders are better than VisualBERT.", "mufin", "visualbert", GENERAL),
)
# Rows that only some profiles have, and the row that stands for them elsewhere.
STANDS_FOR = {
    "published": "mufin",  # where MUFIN itself has the modules of the paper
    "soft_triplet": "mufin",  # where MUFIN's own Module I has hard samples
    "mufin_fixed": "mufin",  # where MUFIN itself predicts by the paper's score
}


def judge(winner: Row, loser: Row, metric: str) -> tuple[str, str]:
    """The verdict of `winner` > `loser` in one metric, and the figures as text.

    The difference counts where it exceeds the spread, sqrt(s1^2 + s2^2) of the two standard
    deviations over seeds. With one seed of each there is no spread, and the verdict says so.
    """
    (a, s), (b, t) = winner.metrics[metric], loser.metrics[metric]
    difference, spread = a - b, math.hypot(s, t)
    text = f"{metric} {a:.2f} against {b:.2f}: {signed(difference)}"
    if max(winner.seeds, loser.seeds) < 2:
        return LEANS if difference > 0 else AGAINST, text
    text += f", spread {spread:.2f}"
    if abs(difference) <= spread:
        return WITHIN, text
    return SHOWS if difference > 0 else NOT, text


def signed(value: float, digits: int = 2) -> str:
    """With its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def of_study(
    table: list[dict],
    baselines: list[str],
    bins: dict[str, list[float]],
    categories: dict[str, list[float]],
    gains: Gains | None,
    neighbours: tuple[float | None, float | None],
) -> list[Claim]:
    """All claims, in the paper's order.

    `table`: rows of metrics/compare.json; `baselines`: names of the text methods; `bins` and
    `categories` {row: R@10 by bin, P@5 by category}; `neighbours`: share and chance, percent.
    """
    run = [row for row in table if row["metrics"]]
    rows = {row["row"]: Row(row["title"], row["metrics"], len(row["seeds"])) for row in run}
    titles = {row["row"]: row["title"] for row in table}
    return [
        *compared(rows, baselines),
        in_all_bins(bins, titles, baselines),
        in_most_categories(categories, titles, baselines),
        relevant_gain_more(gains),
        categories_cluster(*neighbours),
    ]


def compared(rows: dict[str, Row], baselines: list[str]) -> list[Claim]:
    """Every claim about two rows; `baselines`: names of the table's published text methods."""
    claims = [_claim(rows, *pair) for pair in COMPARED]
    for name in baselines:
        title = rows[name].title if name in rows else name
        claims.append(_claim(rows, f"MUFIN is better than {title}.", "mufin", name, GENERAL))
    return claims


def _claim(
    rows: dict[str, Row], text: str, winner: str, loser: str, metrics: tuple[str, ...]
) -> Claim:
    winner, loser = (n if n in rows else STANDS_FOR.get(n, n) for n in (winner, loser))
    if missing := [name for name in (winner, loser) if name not in rows]:
        return Claim(text, NOT_RUN, [f"no figures of {' and '.join(missing)} here"])
    results = [judge(rows[winner], rows[loser], metric) for metric in metrics]
    return Claim(text, results[0][0], [figures for _, figures in results])


def tally(claims: list[Claim]) -> str:
    """How many claims have each verdict, in words."""
    verdicts = [claim.verdict for claim in claims]
    order = (SHOWS, LEANS, WITHIN, NOT, AGAINST, NOT_RUN)
    return "; ".join(f"{v}: {verdicts.count(v)}" for v in order if v in verdicts)


def in_all_bins(
    bins: dict[str, list[float]], titles: dict[str, str], baselines: list[str]
) -> Claim:
    """Fig. 4: MUFIN adds more to R@10 than each baseline in every bin; `bins` {row: means}."""
    text = "MUFIN is better than the baselines in all bins of label popularity."
    others = [name for name in baselines if name in bins]
    if "mufin" not in bins or not others:
        return Claim(text, NOT_RUN, ["no figures of MUFIN or of any baseline here"])
    figures, lost = [], False
    for name in others:
        pairs = enumerate(zip(bins["mufin"], bins[name]), 1)
        where = [str(number) for number, (own, other) in pairs if own <= other]
        lost |= bool(where)
        said = f"not behind MUFIN in bin {', '.join(where)}" if where else "behind MUFIN in all"
        figures.append(f"{titles[name]}: {said}")
    return Claim(text, NOT if lost else SHOWS, figures)


def in_most_categories(
    figures: dict[str, list[float]], titles: dict[str, str], baselines: list[str]
) -> Claim:
    """Table 6: MUFIN has the best P@5 in most categories; `figures` row -> P@5 of each category."""
    text = "MUFIN is best in almost all categories."
    others = [name for name in baselines if name in figures]
    if "mufin" not in figures or not others or len(figures["mufin"]) < 2:
        return Claim(
            text, NOT_RUN, ["no categories, or no figures of MUFIN or of any baseline here"]
        )
    best = [max(figures[name][i] for name in others) for i in range(len(figures["mufin"]))]
    won = sum(own > other for own, other in zip(figures["mufin"], best))
    said = (
        f"better than {', '.join(titles[n] for n in others)} in {won} of {len(best)} categories "
        f"(P@5; 'almost all' is read as {ALMOST_ALL:.0%})"
    )
    return Claim(text, SHOWS if won / len(best) >= ALMOST_ALL else NOT, [said])


def relevant_gain_more(gains: Gains | None) -> Claim:
    """Fig. 5c, over all test datapoints."""
    text = (
        "Cross-attention raises a datapoint's cosine with the classifiers of relevant labels more "
        "than with those of irrelevant labels."
    )
    if gains is None:
        return Claim(
            text, NOT_RUN, ["no cross-attention, or no shortlist with both kinds of labels here"]
        )
    said = (
        f"relevant minus irrelevant {signed(gains.difference, 4)}, standard error "
        f"{gains.error:.4f} over {gains.datapoints} datapoints (it shows above two standard errors)"
    )
    return Claim(text, SHOWS if gains.shows else NOT, [said])


def categories_cluster(share: float | None, chance: float | None) -> Claim:
    """Fig. 6, as a number."""
    text = "Classifiers of labels of one category lie close together."
    if share is None or chance is None:
        return Claim(text, NOT_RUN, ["no categories here"])
    said = (
        f"{share:.1f}% of the 10 nearest classifiers have the label's category, {chance:.1f}% by "
        "chance (it shows above twice chance)"
    )
    return Claim(text, SHOWS if share > 2 * chance else NOT, [said])
