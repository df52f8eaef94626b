"""Cost of the stage evaluate."""

from __future__ import annotations

from mufin.params import Evaluate
from mufin.planning import machine as rates
from mufin.planning.prediction_stages import label_bags, words_of_titles
from mufin.planning.run import FLOAT, LONG, Run
from mufin.planning.scoring import SIDES_HELD, label_sides, score_work
from mufin.planning.search import search_held, search_work, searched
from mufin.planning.training_stages import embeddings_file
from mufin.planning.work import Held, Phase, Stage, Work

WIDTH = 100  # predictions per datapoint
SORTED = 0.25e9  # bytes of temporaries while rankings are sorted (`ranking.order`, CHUNK)


def evaluate(run: Run) -> Stage:
    """`pipeline.evaluate`: candidates and all their scores, all methods, and the metrics.

    What it holds of all labels is `scoring.SIDES_HELD` times `scoring.side_bytes`.
    """
    phases = [_candidates(run), _module_one(run), _references(run)]
    if run.sizes.unseen:
        phases.append(_unseen(run))
    files = {
        "data/predictions": (1 + rows_of_methods(run)) * run.ranking_file(run.sizes.test, WIDTH)
    }
    return Stage("evaluate", phases, files)


def rows_of_methods(run: Run) -> int:
    """Rows of `metrics/methods.csv`: rankings that are held and written (`evaluation.methods`)."""
    x = run.params.index
    rows = 8  # mufin, chosen, alpha 1, rare and popular, two of Module I, popular, TF-IDF
    rows += 2 * bool(x.title_ridge) + bool(x.voters)  # without it, and the ridge alone
    return rows + 2 * _by_part(run)


def _candidates_per_datapoint(run: Run) -> float:
    e, labels = run.params.evaluate, run.sizes.labels
    return labels if e.candidates == "all" else min(e.shortlist, labels)


def _kept(run: Run) -> list[Held]:
    """What the stage holds from its first scores to its end."""
    s, x = run.sizes, run.params.index
    rows = searched(run, run.params.retrieve.vectors)
    k, setting = _candidates_per_datapoint(run), "evaluate.candidates, evaluate.shortlist"
    parts = LONG + 2 * FLOAT + FLOAT * (bool(x.title_ridge) + bool(x.voters))
    alpha_one = FLOAT
    held = [
        *run.process(),
        run.embedded("bags of datapoints", run.asked, s.pictures, run.network.members),
        *label_sides(run, s.labels, SIDES_HELD),
        *search_held(run, "rows", x.search, rows, x.hnsw.m),
        Held("candidates and scores", run.asked * k * float(parts + alpha_one), setting),
        Held("titles", s.products * (70 + 5.5 * s.tokens)),
        Held(
            "rankings of all methods",
            rows_of_methods(run) * run.asked * float(WIDTH * (LONG + FLOAT)),
        ),
    ]
    if x.title_ridge:
        held.append(Held("ridge", words_of_titles(run) * s.labels * 4.0, "index.title_ridge"))
    return held


def _candidates(run: Run) -> Phase:
    """Candidates of valid and test, their scores, alpha = 1 and the popularity mix."""
    s, x, e, n = run.sizes, run.params.index, run.params.evaluate, run.network
    k, rows = _candidates_per_datapoint(run), searched(run, run.params.retrieve.vectors)
    held = _kept(run)
    features = 3 * FLOAT * run.asked + 8.0 * (4 * s.valid + 2 * s.test)
    setting = "evaluate.candidates, evaluate.shortlist"
    held.append(Held("popularity mix", features * k, setting))
    if x.title_ridge:  # `TitleRidge.scores`: of all labels, whatever the candidates
        size = 2.0 * FLOAT * max(s.valid, s.test) * s.labels
        held.append(Held("ridge scores of all labels", size, "index.title_ridge"))
    held.append(Held("temporaries of sorting", SORTED))
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    times = 1 + 2 * _by_part(run)
    search = search_work(run, "labels", x.search, rows, times * run.asked, (0, x.hnsw.ef))
    embed = run.embedding("embed datapoints", networks * times * run.asked, s.pictures)
    sides = SIDES_HELD * n.members * s.labels * n.side.forward
    work = [
        embed,
        *search,
        Work(what="label sides", flop=sides, full=True),
        score_work(run, (times + 1) * run.asked, k),
        Work(what="mixes", core_seconds=_mixes(e) * s.valid * k / 1e7, one_core=True),
    ]
    return Phase("candidates and scores", work, held)


def _by_part(run: Run) -> bool:
    """Whether titles alone and pictures alone are rows of their own (`methods.part_rows`)."""
    modalities = run.params.encoder.modalities
    return "image" in modalities and len(modalities) > 1


def _mixes(e: Evaluate) -> int:
    """Weights that are tried on valid."""
    return len(e.betas) * len(e.frequency_weights) * len(e.ridge_weights) * len(e.vote_weights)


def _module_one(run: Run) -> Phase:
    """Rankings by Module I alone: a second and a third search (`methods.module_one_rows`)."""
    s, n = run.sizes, run.network
    rows = searched(run, "bag")
    held = [
        *_kept(run),
        Held("data/embeddings", embeddings_file(run), "encoder.dim"),
        Held("searched rows of Module I", rows * n.joint * FLOAT, "encoder.dim"),
        *search_held(run, "rows of Module I", "auto", rows, 16),
    ]
    work = []
    for searched_rows in (rows, s.labels):
        work += search_work(run, "Module I", "auto", searched_rows, run.asked, (200, 800))
    work.append(Work(what="read", read=embeddings_file(run)))
    return Phase("Module I alone", work, held)


def _references(run: Run) -> Phase:
    """Popular labels, and nearest train titles by TF-IDF: each title asked with each of train."""
    s = run.sizes
    pairs = float(run.asked) * s.train
    words = (s.train + run.asked) * s.tokens * 12.0
    held = [*_kept(run), Held("TF-IDF of titles", words), Held("similarities", 2**23 * 5 * 4.0)]
    work = Work(what="TF-IDF row", core_seconds=pairs / rates.TFIDF_PAIRS, one_core=True)
    return Phase("reference rows", [work], held)


def _unseen(run: Run) -> Phase:
    """Labels that training has not seen, among the candidates (`methods.unseen_labels`)."""
    s, e, n = run.sizes, run.params.evaluate, run.network
    both = s.labels + s.unseen
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    rows = searched(run, run.params.retrieve.vectors, both, centroids=False)
    held = [
        *_kept(run),
        label_bags(run, both, networks),
        *label_sides(run, both, 1)[:1],
        Held("searched rows with unseen labels", rows * n.joint * FLOAT, "retrieve.vectors"),
        *search_held(run, "rows with unseen labels", "auto", rows, 16),
    ]
    work = [
        run.embedding("embed labels", 2 * networks * both, s.label_pictures),
        *search_work(run, "with unseen labels", "auto", rows, run.asked, (200, 800)),
        score_work(run, run.asked, min(e.shortlist, both)),
    ]
    return Phase("unseen labels", work, held)
