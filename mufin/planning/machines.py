"""Parts of a run on several equal machines (docs/cluster.md): hours, storage.

Pictures and tokens are sent from one machine to the store before the others begin, and their parts
come back to it. So is what the encoders read: to embed, the machines read the rows of their parts;
to predict, each machine fetches all of it, with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mufin.planning.data_stages import precompute, precomputed_files
from mufin.planning.encoders import MARKS, PADDED
from mufin.planning.machine import NETWORK
from mufin.planning.plan import GB, number
from mufin.planning.prediction_stages import index_files
from mufin.planning.run import FLOAT, INT, Run
from mufin.planning.scoring import score_work
from mufin.planning.search import search_work, searched
from mufin.planning.work import Work

HOUR = 3600.0
SPREAD = ("decode", "decode and frozen part of E_V")  # phases of precompute that are in parts
ANSWERS = 10  # per product, as `mufin predict` gives by default
# Arrays that stay in the store; the others go to each machine
READ_BY_RANGE = ("pixels", "image_inputs", "tokens", "text_inputs")
HEADS = ("machines", "h pictures", "h titles", "h embed", "h predict", "GB store", "GB each")


@dataclass(frozen=True, slots=True)
class Step:
    """Work that is shared by the machines; bytes."""

    seconds: float  # on one machine
    sent: float  # from the machine with the data to the store
    fetched: float  # by each machine, whatever their number
    shared: float  # fetched by all machines together
    back: float  # parts, from the store to the machine with the data

    def hours(self, machines: int) -> float:
        """The store serves all machines at once; each has `NETWORK` bytes per second."""
        if machines == 1:
            return self.seconds / HOUR  # without a store
        moved = self.shared + self.back  # by the machines that work, besides their own copy
        working = max(self.seconds, moved / NETWORK) / machines
        return ((self.sent + self.fetched) / NETWORK + max(working, self.back / NETWORK)) / HOUR


def pictures(run: Run) -> Step:
    """The part of `precompute` that `mufin.cluster.pictures` spreads."""
    phases = [phase for phase in precompute(run).phases if phase.what in SPREAD]
    if not phases:
        return Step(0, 0, 0, 0, 0)
    s, e = run.sizes, run.params.encoder.image
    sent = s.images * s.picture_bytes
    # With a self-supervised start the parts are pixels, and the machine does the rest
    pixels = s.images * e.size**2 * 3.0
    files = precomputed_files(run)
    back = pixels if e.self_supervised_epochs else files.get("image_inputs", pixels)
    seconds = sum(phase.seconds(run.machine) for phase in phases)
    weights = run.network.encoders["image"].parameters * float(FLOAT)
    return Step(seconds + back / run.machine.disk_per_second, sent, weights, sent, back)


def titles(run: Run) -> Step:
    """The part of `precompute` that `mufin.cluster.texts` spreads: the frozen part of E_T."""
    encoder = run.network.encoders.get("text")
    if encoder is None or encoder.kind == "inputs":
        return Step(0, 0, 0, 0, 0)
    s, most = run.sizes, run.params.encoder.text.max_tokens
    tokens = min(s.tokens + MARKS, most)
    back = precomputed_files(run)["text_inputs"]
    if encoder.kind == "activations":  # a batch is as wide as its longest text
        back *= min(PADDED * tokens / most, 1.0)
    sent = s.all_texts * (tokens + 1) * INT  # and their number
    work = Work(what="frozen part of E_T", flop=s.all_texts * encoder.frozen)
    seconds = max(work.times(run.machine)) + back / run.machine.disk_per_second
    return Step(seconds, sent, encoder.parameters * float(FLOAT), sent, back)


def embeddings(run: Run) -> Step:
    """The passes of `retrieve` and `index` that `mufin.cluster.embedding` spreads."""
    s, n = run.sizes, run.network
    networks = _networks(run)
    labels, datapoints = (1 + networks) * s.labels, run.splits + s.train
    work = [
        run.embedding("embed labels", labels, s.label_pictures),
        run.embedding("embed datapoints", datapoints, s.pictures),
    ]
    files = precomputed_files(run)
    sent = sum(size for name, size in files.items() if name in READ_BY_RANGE)
    models = (1 + networks) * n.all_parameters * float(FLOAT)
    bags = run.embedded("bags of labels", labels, s.label_pictures, n.members).size
    return Step(
        seconds=sum(max(part.times(run.machine)) for part in work),
        sent=sent,
        fetched=models + 2 * (sum(files.values()) - sent),  # by each of the two stages
        shared=sum(part.read for part in work),
        back=bags + datapoints * n.joint * float(FLOAT),
    )


def predictions(run: Run) -> Step:
    """`mufin predict` of all products: encoded, candidates found, scored."""
    s, x, e = run.sizes, run.params.index, run.params.evaluate
    rows = searched(run, run.params.retrieve.vectors)
    networks = _networks(run)
    width = s.labels if e.candidates == "all" else e.shortlist
    work: list[Work] = [
        run.embedding("embed products", networks * s.products, s.references / max(s.products, 1)),
        *search_work(run, "labels", x.search, rows, s.products, (0, x.hnsw.ef)),
        score_work(run, s.products, width),
    ]
    seconds = sum(max(part.times(run.machine)) for part in work)
    model = sum(index_files(run).values()) + run.network.all_parameters * float(FLOAT)
    model += sum(precomputed_files(run).values())
    back = run.ranking_file(s.products, ANSWERS)
    return Step(seconds, model, model, 0, back)


def _networks(run: Run) -> int:
    """Networks that embed a product: the fine-tuned one, and that of Module I if it searches."""
    return 2 if run.params.retrieve.model == "pretrain" else 1


def figures(run: Run, most: int) -> list[dict[str, float]]:
    """Hours, bytes in the store and at most on each machine, for 1, 4, 16, ... and `most`."""
    run = run.alone()  # `mufin predict` runs in one process per machine
    steps = {
        "pictures": pictures(run),
        "titles": titles(run),
        "embed": embeddings(run),
        "predict": predictions(run),
    }
    # What is sent to embed is a part of what is sent to predict
    kept = ("pictures", "titles", "predict")
    store = sum(s.back for s in steps.values()) + sum(steps[name].sent for name in kept)
    return [
        {
            "machines": n,
            **{f"hours_{name}": step.hours(n) for name, step in steps.items()},
            "store": store if n > 1 else 0.0,
            "each": max(_each(s, n) for s in steps.values()) if n > 1 else 0.0,
        }
        for n in counts(most)
    ]


def _each(step: Step, machines: int) -> float:
    """Bytes that each machine fetches, and what it makes."""
    return step.fetched + (step.shared + step.back) / machines


def machines_table(run: Run, most: int) -> Iterator[str]:
    """The figures, a line per number of machines."""
    yield "".join(f"{head:>12}" for head in HEADS).strip()
    for row in figures(run, most):
        hours = [row[f"hours_{step}"] for step in ("pictures", "titles", "embed", "predict")]
        cells = [*hours, row["store"] / GB, row["each"] / GB]
        yield f"{row['machines']:<{len(HEADS[0])}}" + "".join(
            f"{number(cell):>12}" for cell in cells
        )


def counts(most: int) -> list[int]:
    """1, 4, 16, ... below `most`, and `most`."""
    below, count = [], 1
    while count < most:
        below.append(count)
        count *= 4
    return [*below, most]
