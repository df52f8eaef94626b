"""Costs of the stages retrieve, index and folds."""

from __future__ import annotations

from dataclasses import replace

from mufin.planning import machine as rates
from mufin.planning.finetune_stage import finetune
from mufin.planning.run import FLOAT, INT, LONG, Run
from mufin.planning.search import (
    graph_file,
    is_exact,
    search_held,
    search_work,
    searched,
)
from mufin.planning.training_stages import pretrain, transfer
from mufin.planning.training_steps import embeddings_file, loading
from mufin.planning.work import Held, Phase, Stage, Work, in_processes
from mufin.ranking.title_ridge import CELLS, MOST, MOST_BYTES

FOUND = 12 * 2  # bytes per label found, with a copy: id and similarity
WORDS = 40  # distinct words per square root of all words of titles, about
STEPS = 60  # of conjugate gradients for the title ridge, assumed
STORED_FOLD = 2.5  # bytes of a candidate's id in a Parquet file


def retrieve(run: Run) -> Stage:
    """Module II (`pipeline.retrieve`): embed all, search all bag rows and centroids of labels."""
    s, r, n = run.sizes, run.params.retrieve, run.network
    rows, bags = searched(run, r.vectors), label_bags(run)
    kept = [*run.process(), Held("vectors of all", embeddings_file(run), "encoder.dim")]
    k = min(r.shortlist, s.labels)
    ef = r.hnsw.ef_construction, r.hnsw.ef
    search = search_work(run, "labels", r.search, rows, run.splits, ef, r.hnsw.threads)
    found = Held("shortlists", max(s.train, s.test) * k * float(FOUND), "retrieve.shortlist")
    searching = Phase(
        "search",
        search,
        [*kept, *search_held(run, "rows", r.search, rows, r.hnsw.m), found],
        in_processes=is_exact(run, r.search, rows),  # one process builds and asks a graph
    )
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
            [*run.process(), bags, _datapoints(run)],
        ),
        Phase("join vectors", [], [*kept, bags, _joined(run)]),
    ]
    files = {
        "data/embeddings": embeddings_file(run),
        "data/shortlists": run.ranking_file(run.splits, k),
    }
    return Stage("retrieve", [*in_processes(phases), searching], files)


def label_bags(run: Run, labels: float | None = None, networks: int = 1) -> Held:
    labels = run.sizes.labels if labels is None else labels
    members = run.network.members * networks
    return run.embedded("bags of labels", labels, run.sizes.label_pictures, members)


def _datapoints(run: Run) -> Held:
    """Vectors of the train datapoints by all members, twice while their batches are joined."""
    size = 2 * run.sizes.train * run.network.joint * float(FLOAT)
    return Held("vectors of datapoints", size, "encoder.dim")


def _joined(run: Run) -> Held:
    size = run.sizes.labels * run.network.rows(run.sizes.label_pictures)
    return Held("joined bag rows", size * run.network.joint * FLOAT, "encoder.dim")


def index(run: Run) -> Stage:
    """`pipeline.index`: bags and classifiers of labels, the search among them, ridge and votes."""
    s, x, n = run.sizes, run.params.index, run.network
    rows = searched(run, run.params.retrieve.vectors)
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    bags = label_bags(run, networks=networks)
    folders = {"models/finetune": True} | ({"models/pretrain": False} if networks == 2 else {})
    vectors = Held("vectors of datapoints", s.train * n.joint * 4.0, "encoder.dim")
    kept = [*run.process(), bags, vectors]
    ef = x.hnsw.ef_construction, x.hnsw.ef
    build = search_work(run, "labels", x.search, rows, 0, ef, x.hnsw.threads)
    embed = [run.embedding("embed labels", networks * s.labels, s.label_pictures)]
    embed.append(run.embedding("embed datapoints", s.train, s.pictures))
    phases = in_processes(
        [
            loading(run, folders),
            Phase("embed", embed, [*run.process(), bags, _datapoints(run)]),
        ]
    )  # one process does the rest
    held = [*kept, *_graph_held(run, "rows", rows)]
    if x.voters:
        held += _graph_held(run, "voters", s.train)
        build += search_work(run, "voters", x.search, s.train, 0, ef, x.hnsw.threads)
    phases.append(Phase("build the search", build, held))
    if x.title_ridge:
        phases.append(_ridge(run, held))
    size = FLOAT * words_of_titles(run) * s.labels
    many = bool(x.title_ridge) and size > MOST_BYTES
    refused = (
        f"index.title_ridge has a weight per word and label: they take {size / 1e9:.0f} GB, more "
        f"than {MOST_BYTES / 1e9:.0f} GB; set it to 0.0 and evaluate.ridge_weights to [0.0]"
    )
    return Stage(
        "index",
        phases,
        {"models/index": sum(index_files(run).values())},
        0.0,
        refused if many else "",
    )


def _graph_held(run: Run, what: str, rows: float) -> list[Held]:
    """What the stage index holds of a search: the graph; exact search arranges rows when asked."""
    x = run.params.index
    exact = is_exact(run, x.search, rows)
    return [] if exact else search_held(run, what, x.search, rows, x.hnsw.m)


def index_files(run: Run) -> dict[str, float]:
    """{part: bytes} of `models/index` (`ranking.label_index.save_index`)."""
    s, x, n = run.sizes, run.params.index, run.network
    networks = 2 if run.params.retrieve.model == "pretrain" else 1
    rows = searched(run, run.params.retrieve.vectors)
    out = {
        "bags": label_bags(run, networks=networks).size,
        "classifiers": s.labels * n.joint * 4.0,
        "centroids": s.labels * n.joint * 4.0,
        "products, frequency": s.labels * 2.0 * LONG,
    }
    if not is_exact(run, x.search, rows):
        out["graph"] = graph_file(rows, n.joint, x.hnsw.m)
    if x.title_ridge:
        out["ridge"] = words_of_titles(run) * (s.labels * FLOAT + LONG + 8.0) + s.labels * FLOAT
    if x.voters:
        out["voters"] = s.train * (n.joint * FLOAT + 3.0 * LONG) + s.pairs * INT
        if not is_exact(run, x.search, s.train):
            out["graph of voters"] = graph_file(s.train, n.joint, x.hnsw.m)
    return out


def words_of_titles(run: Run) -> float:
    """Distinct title words of train; they grow with the square root of all words (Heaps)."""
    return run.sizes.terms or WORDS * (run.sizes.train * run.sizes.tokens) ** 0.5


def _ridge(run: Run, held: list[Held]) -> Phase:
    """Weights per word and label (`ranking.title_ridge`).

    Up to `MOST` train titles their kernel is factorised; with more, conjugate gradients read the
    sparse titles in each step.
    """
    s, words = run.sizes, words_of_titles(run)
    weights = Held("weights of the title ridge", words * s.labels * 4.0, "index.title_ridge")
    if s.train <= MOST:
        kernel = Held("kernel of the title ridge", 2 * 8.0 * s.train**2, "index.title_ridge")
        flop = s.train**3 / 3 + 2.0 * s.train**2 * s.labels
        seconds = 2 * flop / run.machine.cpu_flop * run.machine.cores
    else:
        kernel = Held("columns of the title ridge", 5 * 8.0 * CELLS, "index.title_ridge")
        seconds = STEPS * 4 * s.train * s.tokens * s.labels / rates.SPARSE_FLOP
    work = Work(what="title ridge", core_seconds=seconds)
    return Phase("title ridge", [work], [*held, kernel, weights])


def folds(run: Run) -> Stage:
    """`pipeline.folds`: with a mix of folds, Modules I to IV and the index on parts of train.

    A fold is a run of one member in a folder of its own, in one process. Several processes run one
    each at a time; in the last round some of them may have none.
    """
    e = run.params.evaluate
    if e.mix != "cross_validated":
        return Stage("folds", [])
    share = 1 - 1 / e.folds
    s, part = run.sizes, int(run.sizes.train * share)
    sizes = replace(s, train=part, valid=0, test=s.train - part, labels=round(s.labels * share))
    fold = replace(
        run.alone(), sizes=sizes, network=replace(run.network, members=1, labels=sizes.labels)
    )
    stages = [make(fold) for make in (pretrain, retrieve, transfer, finetune, index)]
    phases = [phase for stage in stages for phase in stage.phases]
    width = sizes.labels if e.candidates == "all" else e.shortlist
    files = {"data/folds": s.train * min(width, sizes.labels) * (STORED_FOLD + 4.0 * FLOAT)}
    scratch = sum(sum(stage.files.values()) for stage in stages)
    refused = next((stage.refused for stage in stages if stage.refused), "")
    processes = run.machine.processes
    rounds = -(-e.folds // processes)
    repeated = [_repeated(phase, rounds * processes) for phase in phases]
    return Stage("folds", repeated, files, scratch, refused)


def _repeated(phase: Phase, times: int) -> Phase:
    """The phase with the work of so many folds, shared; each process has the memory of one."""
    names = ("flop", "moved", "core_seconds", "read", "written", "waited")
    work = [
        replace(w, shared=True, **{name: times * getattr(w, name) for name in names})
        for w in phase.work
    ]
    return replace(phase, work=work, in_processes=True)
