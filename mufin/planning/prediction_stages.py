"""Costs of the stages retrieve, index, folds and evaluate."""

from __future__ import annotations

from dataclasses import replace

from mufin.params import Evaluate
from mufin.planning import machine as rates
from mufin.planning.run import FLOAT, INT, LONG, Run
from mufin.planning.scoring import SIDES_HELD, label_sides, score_work
from mufin.planning.search import (
    graph_file,
    is_exact,
    search_held,
    search_work,
    searched,
)
from mufin.planning.training_stages import (
    embeddings_file,
    finetune,
    loading,
    pretrain,
    transfer,
)
from mufin.planning.work import Held, Phase, Stage, Work
from mufin.ranking.title_ridge import MOST

JOINED = 3  # copies of bag rows while they are scaled and joined (`nn.embedding.joint_rows`)
WIDTH = 100  # predictions per datapoint
FOUND = 12 * 2  # bytes per label found, with a copy: id and similarity
SORTED = 0.25e9  # bytes of temporaries while rankings are sorted (`ranking.order`, CHUNK)
WORDS = 40  # distinct words per square root of all words of titles, about
STORED_FOLD = 2.5  # bytes of a candidate's id in a Parquet file


def retrieve(run: Run) -> Stage:
    """Module II (`pipeline.retrieve`): embed all, search all bag rows and centroids of labels."""
    s, r, n = run.sizes, run.params.retrieve, run.network
    rows = searched(run, r.vectors)
    size, bags = rows * n.joint * FLOAT, _label_bags(run)
    kept = [*run.process(), Held("vectors of all", embeddings_file(run), "encoder.dim")]
    k = min(r.shortlist, s.labels)
    search = search_work(
        run, "labels", r.search, rows, run.splits, (r.hnsw.ef_construction, r.hnsw.ef)
    )
    found = Held("shortlists", max(s.train, s.test) * k * float(FOUND), "retrieve.shortlist")
    given = Held("searched rows", size, "retrieve.vectors")
    phases = [
        loading(run, {"models/pretrain": False}),
        Phase(
            "embed labels",
            [run.embedding("embed labels", s.labels, s.label_pictures)],
            [*run.process(), replace(bags, size=bags.size * (1 + 1 / n.members))],
        ),
        Phase(
            "embed datapoints",
            [run.embedding("embed datapoints", run.splits, s.pictures)],
            [*run.process(), bags, _datapoint_bags(run, s.train)],
        ),
        Phase("join vectors", [], [*kept, bags, _joined(run)]),
        Phase(
            "search",
            search,
            [*kept, given, *search_held(run, "rows", r.search, rows, r.hnsw.m), found],
        ),
    ]
    files = {
        "data/embeddings": embeddings_file(run),
        "data/shortlists": run.ranking_file(run.splits, k),
    }
    return Stage("retrieve", phases, files)


def _label_bags(run: Run, labels: float | None = None, networks: int = 1) -> Held:
    labels = run.sizes.labels if labels is None else labels
    members = run.network.members * networks
    return run.embedded("bags of labels", labels, run.sizes.label_pictures, members)


def _datapoint_bags(run: Run, datapoints: float) -> Held:
    """Bags of datapoints by all members, one of them twice while its batches are joined."""
    what = "bags of datapoints"
    return run.embedded(what, datapoints, run.sizes.pictures, run.network.members + 1)


def _joined(run: Run) -> Held:
    size = run.sizes.labels * run.network.rows(run.sizes.label_pictures)
    return Held("joined bag rows", JOINED * size * run.network.joint * FLOAT, "encoder.dim")


def index(run: Run) -> Stage:
    """`pipeline.index`: bags and classifiers of labels, the search among them, ridge and votes."""
    s, x, n = run.sizes, run.params.index, run.network
    rows = searched(run, run.params.retrieve.vectors)
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    bags = _label_bags(run, networks=networks)
    folders = {"models/finetune": True} | ({"models/pretrain": False} if networks == 2 else {})
    vectors = Held("vectors of datapoints", s.train * n.joint * 4.0, "encoder.dim")
    given = Held("searched rows", rows * n.joint * FLOAT, "retrieve.vectors")
    kept = [*run.process(), bags, vectors]
    ef = x.hnsw.ef_construction, x.hnsw.ef
    build = search_work(run, "labels", x.search, rows, 0, ef)
    embed = [run.embedding("embed labels", networks * s.labels, s.label_pictures)]
    embed.append(run.embedding("embed datapoints", s.train, s.pictures))
    phases = [
        loading(run, folders),
        Phase("embed", embed, [*run.process(), bags, _datapoint_bags(run, s.train)]),
        Phase("join vectors", [], [*kept, _joined(run)]),
    ]
    held = [*kept, given, *search_held(run, "rows", x.search, rows, x.hnsw.m)]
    if x.voters:
        held += search_held(run, "voters", x.search, s.train, x.hnsw.m)
        build += search_work(run, "voters", x.search, s.train, 0, ef)
    phases.append(Phase("build the search", build, held))
    if x.title_ridge:
        phases.append(_ridge(run, held))
    many = bool(x.title_ridge) and s.train > MOST
    refused = (
        f"index.title_ridge supports at most {MOST:,} train datapoints, and there are {s.train:,}; "
        "set it to 0.0 and evaluate.ridge_weights to [0.0]"
    )
    return Stage(
        "index",
        phases,
        {"models/index": sum(index_files(run).values())},
        0.0,
        refused if many else "",
    )


def index_files(run: Run) -> dict[str, float]:
    """{part: bytes} of `models/index` (`ranking.label_index.save_index`)."""
    s, x, n = run.sizes, run.params.index, run.network
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    rows = searched(run, run.params.retrieve.vectors)
    out = {
        "bags": _label_bags(run, networks=networks).size,
        "classifiers": s.labels * n.joint * 4.0,
        "centroids": s.labels * n.joint * 4.0,
        "products, frequency": s.labels * 2.0 * LONG,
    }
    if not is_exact(run, x.search, rows):
        out["graph"] = graph_file(rows, n.joint, x.hnsw.m)
    if x.title_ridge:
        out["ridge"] = _words(run) * (s.labels * FLOAT + LONG + 8.0) + s.labels * FLOAT
    if x.voters:
        out["voters"] = s.train * (n.joint * FLOAT + 3.0 * LONG) + s.pairs * INT
        if not is_exact(run, x.search, s.train):
            out["graph of voters"] = graph_file(s.train, n.joint, x.hnsw.m)
    return out


def _words(run: Run) -> float:
    """Distinct title words of train; they grow with the square root of all words (Heaps)."""
    return run.sizes.terms or WORDS * (run.sizes.train * run.sizes.tokens) ** 0.5


def _ridge(run: Run, held: list[Held]) -> Phase:
    """The kernel of all train titles, factorised, and weights per word and label
    (`ranking.title_ridge`).
    """
    s, words = run.sizes, _words(run)
    kernel = Held("kernel of the title ridge", 2 * 8.0 * s.train**2, "index.title_ridge")
    weights = Held("weights of the title ridge", words * s.labels * 4.0, "index.title_ridge")
    flop = s.train**3 / 3 + 2.0 * s.train**2 * s.labels
    work = Work(
        what="title ridge", core_seconds=2 * flop / run.machine.cpu_flop * run.machine.cores
    )
    return Phase("title ridge", [work], [*held, kernel, weights])


def folds(run: Run) -> Stage:
    """`pipeline.folds`: with a mix of folds, Modules I to IV and the index on parts of train.

    A fold is a run of one member in a folder of its own, one after the other.
    """
    e = run.params.evaluate
    if e.mix != "cross_validated":
        return Stage("folds", [])
    share = 1 - 1 / e.folds
    s, part = run.sizes, int(run.sizes.train * share)
    sizes = replace(s, train=part, valid=0, test=s.train - part, labels=round(s.labels * share))
    fold = replace(run, sizes=sizes, network=replace(run.network, members=1, labels=sizes.labels))
    stages = [make(fold) for make in (pretrain, retrieve, transfer, finetune, index)]
    phases = [phase for stage in stages for phase in stage.phases]
    width = sizes.labels if e.candidates == "all" else e.shortlist
    files = {"data/folds": s.train * min(width, sizes.labels) * (STORED_FOLD + 4.0 * FLOAT)}
    scratch = sum(sum(stage.files.values()) for stage in stages)
    refused = next((stage.refused for stage in stages if stage.refused), "")
    repeated = [_repeated(phase, e.folds) for phase in phases]
    return Stage("folds", repeated, files, scratch, refused)


def _repeated(phase: Phase, times: int) -> Phase:
    """The phase with the work of so many folds; its memory is that of one."""
    names = ("flop", "moved", "core_seconds", "read", "written", "waited")
    work = [replace(w, **{name: times * getattr(w, name) for name in names}) for w in phase.work]
    return replace(phase, work=work)


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
        held.append(Held("ridge", _words(run) * s.labels * 4.0, "index.title_ridge"))
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
        _label_bags(run, both, networks),
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
