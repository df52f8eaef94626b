"""Cost of the stage evaluate."""

from __future__ import annotations

from mufin.evaluation.scored import CELLS
from mufin.params import Evaluate
from mufin.planning import machine as rates
from mufin.planning.prediction_stages import label_bags, words_of_titles
from mufin.planning.run import FLOAT, LONG, Run
from mufin.planning.scoring import (
    CHUNKS,
    SIDES,
    label_sides,
    most_sides,
    score_work,
    side_bytes,
)
from mufin.planning.search import SCORES, search_held, search_work, searched
from mufin.planning.training_steps import embeddings_file
from mufin.planning.work import Held, Phase, Stage, Work, in_processes
from mufin.ranking.title_ridge import CELLS as RIDGE_CELLS

RANKINGS = "rankings of methods"
WIDTH = 100  # predictions per datapoint
SORTED = 0.25e9  # bytes of temporaries while rankings are sorted (`ranking.order`, CHUNK)


def evaluate(run: Run) -> Stage:
    """`pipeline.evaluate`: candidates and all their scores, all methods, and the metrics.

    Label sides, candidates and rankings are bounded; what is over a bound is computed in blocks.
    """
    phases = [_candidates(run), _module_one(run), _references(run)]
    if run.sizes.unseen:
        phases.append(_unseen(run))
    phases = in_processes(phases)
    files = {
        "data/predictions": (1 + rows_of_methods(run)) * run.ranking_file(run.sizes.test, WIDTH)
    }
    return Stage("evaluate", phases, files)


def rows_of_methods(run: Run) -> int:
    """Rows of `metrics/methods.csv`: rankings that are held and written (`evaluation.methods`)."""
    x = run.params.index
    rows = 7  # mufin, chosen, alpha 1, rare and popular, two of Module I, popular
    rows += _tfidf_pairs(run) > 0
    rows += 2 * bool(x.title_ridge) + bool(x.voters)  # without it, and the ridge alone
    return rows + 2 * _by_part(run)


def _candidates_per_datapoint(run: Run) -> float:
    e, labels = run.params.evaluate, run.sizes.labels
    return labels if e.candidates == "all" else min(e.shortlist, labels)


def _cells(run: Run) -> float:
    """Scores of candidates that are held: of each split all of them, or a block
    (`evaluation.scored`).
    """
    k = _candidates_per_datapoint(run)
    return sum(min(n * k, float(CELLS)) for n in (run.sizes.valid, run.sizes.test))


def _in_blocks(run: Run) -> bool:
    """Whether the scores of test do not fit, so that each pass computes them again."""
    return run.sizes.test * _candidates_per_datapoint(run) > CELLS


def _at_once(run: Run) -> int:
    """Methods whose rankings are held at once: those that share a pass over blocks, else one."""
    if not _in_blocks(run):
        return 1
    return 4 + bool(run.params.index.title_ridge) + bool(run.params.index.voters)


def _kept(run: Run) -> list[Held]:
    """What the stage holds from its first scores to its end."""
    s, x = run.sizes, run.params.index
    rows = searched(run, run.params.retrieve.vectors)
    setting = "evaluate.candidates, evaluate.shortlist"
    parts = LONG + 2 * FLOAT + FLOAT * (bool(x.title_ridge) + bool(x.voters))
    alpha_one = FLOAT
    sides = label_sides(run, s.labels)
    beside = sum(h.size for h in [*run.process(), *sides] if h.on_device)
    held = [
        *run.process(),
        run.embedded("bags of datapoints", run.asked, s.pictures, run.network.members),
        *sides,
        *search_held(run, "rows", x.search, rows, x.hnsw.m, beside),
        Held("candidates and scores", _cells(run) * float(parts + alpha_one), setting),
        Held("titles", s.products * (70 + 5.5 * s.tokens)),
        _rankings(run, _at_once(run)),
    ]
    if x.title_ridge:
        held.append(Held("ridge", words_of_titles(run) * s.labels * 4.0, "index.title_ridge"))
    return held


def _candidates(run: Run) -> Phase:
    """Candidates of valid and test, their scores, alpha = 1 and the popularity mix."""
    s, x, e, n = run.sizes, run.params.index, run.params.evaluate, run.network
    k, rows = _candidates_per_datapoint(run), searched(run, run.params.retrieve.vectors)
    held = _kept(run)
    setting = "evaluate.candidates, evaluate.shortlist"
    held.append(Held("popularity mix", (3 * FLOAT + 4 * 8.0) * _cells(run), setting))
    if x.title_ridge:  # `TitleRidge.of`: of all labels, whatever the candidates
        size = 2.0 * FLOAT * min(max(s.valid, s.test) * float(s.labels), RIDGE_CELLS)
        held.append(Held("ridge scores of all labels", size, "index.title_ridge"))
    held.append(Held("temporaries of sorting", SORTED))
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    times = 1 + 2 * _by_part(run)
    search = search_work(run, "labels", x.search, rows, times * run.asked, (0, x.hnsw.ef))
    embed = run.embedding("embed datapoints", networks * times * run.asked, s.pictures)
    passes = 2 if _in_blocks(run) else 1  # one chooses the mix, one makes the rankings
    fits = side_bytes(run, s.labels) <= most_sides(run)
    kinds = 2 if fits else 4  # classifiers and alpha = 1; in blocks, of valid and of test
    sides = passes * kinds * n.members * s.labels * n.side.forward
    work = [
        embed,
        *search,
        Work(what="label sides", flop=sides, full=True),
        score_work(run, (passes * 2 + times - 1) * run.asked, k),
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


def _kept_later(run: Run) -> list[Held]:
    """What of `_kept` is there in the later phases: one method is held, and nothing of all labels
    but a graph (`Predictor.release`).
    """
    released = (SCORES, RANKINGS, SIDES, CHUNKS, "sorted rows", "order of rows")
    kept = [held for held in _kept(run) if held.what not in released]
    return [*kept, _rankings(run, 1)]


def _rankings(run: Run, methods: int) -> Held:
    """The best labels and their scores of all datapoints, by so many methods."""
    return Held(RANKINGS, methods * run.asked * float(WIDTH * (LONG + FLOAT)))


def _module_one(run: Run) -> Phase:
    """Rankings by Module I alone: a second and a third search (`methods.module_one_rows`)."""
    s, n = run.sizes, run.network
    rows = searched(run, "bag")
    held = [
        *_kept_later(run),
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
    """Popular labels, and nearest train titles by TF-IDF, which compares few pairs in full."""
    s, pairs = run.sizes, _tfidf_pairs(run)
    words = (s.train + run.asked) * s.tokens * 12.0
    held = [
        *_kept_later(run),
        Held("TF-IDF of titles", words),
        Held("similarities", 2**23 * 5 * 4.0),
    ]
    work = Work(
        what="TF-IDF row", core_seconds=pairs / rates.TFIDF_PAIRS, one_core=True, shared=True
    )
    return Phase("reference rows", [work], held)


def _tfidf_pairs(run: Run) -> float:
    """Pairs of titles that the row of TF-IDF compares; 0 without this row."""
    pairs = float(run.asked) * run.sizes.train
    return pairs if pairs <= run.params.evaluate.tfidf_pairs else 0.0


def _unseen(run: Run) -> Phase:
    """Labels that training has not seen, among the candidates (`methods.unseen_labels`)."""
    s, e, n = run.sizes, run.params.evaluate, run.network
    both = s.labels + s.unseen
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    rows = searched(run, run.params.retrieve.vectors, both, centroids=False)
    held = [
        *_kept_later(run),
        label_bags(run, both, networks),
        *label_sides(run, both),
        Held("searched rows with unseen labels", rows * n.joint * FLOAT, "retrieve.vectors"),
        *search_held(run, "rows with unseen labels", "auto", rows, 16),
    ]
    work = [
        run.embedding("embed labels", 2 * networks * both, s.label_pictures),
        *search_work(run, "with unseen labels", "auto", rows, run.asked, (200, 800)),
        score_work(run, run.asked, min(e.shortlist, both)),
    ]
    return Phase("unseen labels", work, held)
