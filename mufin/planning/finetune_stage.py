"""Cost of the stage finetune (Module IV)."""

from __future__ import annotations

from mufin.planning.network import Network
from mufin.planning.run import CUDA_DEVICE, FLOAT, INT, Run
from mufin.planning.scoring import label_sides, score_work
from mufin.planning.training_steps import (
    ADAM,
    MINING,
    SPARSE,
    Parts,
    checkpoint,
    has_half_tables,
    input_arrays,
    inputs_work,
    loading,
    model_file,
    prepare_work,
    step_held,
    steps_work,
    table,
    trained_tables,
)
from mufin.planning.work import Held, Phase, Stage, Work, in_processes
from mufin.ranking.validation import CELLS
from mufin.training.every_label import labels_per_block
from mufin.training.table_updates import dense_pays

UPDATED = 10  # float32 numbers per number of a block of eta in bfloat16, while it is updated
NEGATIVES = 8  # bytes per shortlisted label: blocks of negatives, then these put together


def finetune(run: Run) -> Stage:
    """Module IV (`training.finetuning`): datapoints, and the distinct labels of their pairs.

    With `candidates: all` every step encodes every label. With `train_encoders: false` the
    encoders run once (`nn.encoded`).
    """
    s, f, n = run.sizes, run.params.finetune, run.network
    encoders = n.encoders
    if not f.train_encoders:
        encoders = {name: e.held() for name, e in encoders.items()}
    batch = min(f.batch_size, s.train)
    pairs = batch * (f.positives + f.negatives + f.random_negatives)
    labels = s.labels if f.candidates == "all" else min(pairs, s.labels)
    step: Parts = ((batch, s.pictures),)
    if f.train_labels:
        step += ((labels, s.label_pictures),)
    steps = f.epochs * s.train / max(batch, 1) * n.members
    scored = batch * labels if f.candidates == "all" or f.loss == "softmax" else pairs
    work = [
        steps_work(run, steps, step, encoders),
        inputs_work(run, steps, step, encoders),
        prepare_work(steps),
        _scored(run, steps, scored, labels, f.loss == "hinge" and f.candidates != "all"),
        _updates(run, steps, labels),
    ]
    held = step_held(run, step, encoders, _scores_held(run, scored, labels), with_tables=True)
    held += [*_tables_held(run, labels), *_lists(run)]
    if not f.train_labels:
        held.append(Held("z of all labels", labels * n.dim * FLOAT, "encoder.dim", True))
        flop = labels * n.product(s.label_pictures, encoders).forward
        work.append(Work(what="embed labels", flop=f.epochs * n.members * flop))
    phases = [loading(run, {"models/transfer": True}), Phase("train", work, held, overlaps=True)]
    if not f.train_encoders:
        outputs = _outputs(run, n)
        held.append(outputs)
        phases.insert(1, Phase("encode once", [_encode_once(run, n)], [*run.process(), outputs]))
    if f.select == "valid":
        phases.append(_validation(run))
    phases = in_processes(phases)
    return Stage(
        "finetune", phases, {"models/finetune": model_file(run, True)}, checkpoint(run, True)
    )


def _scored(run: Run, steps: float, pairs: float, labels: float, of_pairs: bool) -> Work:
    n = run.network
    flop = pairs * n.pair.step if of_pairs else pairs * n.score.step + labels * n.side.step
    if _block(run, labels) is not None:  # the backward pass makes all scores again
        flop += pairs * n.score.forward + labels * n.side.forward
    return Work(what="scores, forward and backward", flop=steps * flop)


def _scores_held(run: Run, pairs: float, labels: float) -> float:
    f, n = run.params.finetune, run.network
    if f.loss == "hinge" and f.candidates != "all":
        return pairs * n.pair.saved
    masks = 2 + FLOAT * 4  # relevant and allowed, and the softmax with its gradient
    if (block := _block(run, labels)) is not None:
        # Classifiers of all labels and their gradient; or the gradient of z, and a block's update
        half = has_half_tables(run)
        rows = labels * f.train_labels + UPDATED * block if half else 2.0 * labels
        vectors = rows * n.dim * FLOAT
        scored = pairs / labels * block
        return scored * (n.score.saved + masks) + block * n.side.saved + vectors
    return pairs * (n.score.saved + masks) + labels * n.side.saved


def _block(run: Run, labels: float) -> int | None:
    """Labels that a step over all labels scores at once; None where that is all of them."""
    f = run.params.finetune
    if f.candidates != "all":
        return None
    return labels_per_block(f.batch_size, round(labels), run.params.transfer.a_c != "none")


def _updates(run: Run, steps: float, labels: float) -> Work:
    """Bytes moved by the update of eta and alpha: parameter, moments and gradient, read and
    written.
    """
    if _dense(run, labels):
        return Work(what="update all labels", moved=steps * trained_tables(run, 7))
    moved = steps * labels * (run.network.dim + 1) * 7.0 * FLOAT
    return Work(what="update labels of the step", moved=moved)


def _dense(run: Run, labels: float) -> bool:
    """Whether AdamW updates all rows of eta and alpha; with `auto` as the stage decides."""
    if (chosen := run.params.finetune.free_update) != "auto" or has_half_tables(run):
        return chosen != "rows"
    free = None
    if run.machine.has_gpu:
        inputs = filter(run.store_on_gpu, input_arrays(run, run.network.encoders).values())
        free = run.machine.gpu - CUDA_DEVICE - sum(inputs)
    count = run.network.labels
    return dense_pays(count, round(table(run, 1) / FLOAT / max(count, 1)), round(labels), free)


def _tables_held(run: Run, labels: float) -> list[Held]:
    f, n = run.params.finetune, run.network
    dense = _dense(run, labels)
    copies = 1 + (ADAM if dense and not has_half_tables(run) else SPARSE)
    setting = "encoder.dim, finetune.free_update" if dense else "encoder.dim"
    held = [Held("eta and alpha with their moments", trained_tables(run, copies), setting, True)]
    if run.params.transfer.classifier == "prime":
        held.append(Held("centroids", n.labels * n.dim * 4.0, "transfer.classifier", True))
    if f.select == "valid":
        held.append(Held("weights of the best epoch", model_file(run, True), "finetune.select"))
    return held


def _lists(run: Run) -> list[Held]:
    """Shortlists, and what finds the negatives in them (`training.mining.shortlist_negatives`)."""
    s, k = run.sizes, min(run.params.retrieve.shortlist, run.sizes.labels)
    return [
        Held("pairs of train", s.pairs * MINING, "curate.max_products"),
        Held("shortlists", (s.train + s.valid) * k * float(INT), "retrieve.shortlist"),
        Held("negatives of shortlists", s.train * k * float(NEGATIVES), "retrieve.shortlist"),
    ]


def _outputs(run: Run, network: Network) -> Held:
    s, size = run.sizes, 0.0
    counts = {"image": s.images, "text": s.all_texts}
    for name, e in network.encoders.items():
        if e.kind != "descriptors":
            size += counts[name] * e.width * float(FLOAT)
    return Held("outputs of the encoders", size, "finetune.train_encoders")


def _encode_once(run: Run, network: Network) -> Work:
    s, flop = run.sizes, 0.0
    counts = {"image": s.images, "text": s.all_texts}
    for name, e in network.encoders.items():
        flop += counts[name] * e.trained.forward
    return Work(what="encoders", flop=network.members * flop)


def _validation(run: Run) -> Phase:
    """P@1 and P@5 on valid after each epoch (`ranking.validation`)."""
    s, epochs = run.sizes, run.params.finetune.epochs * run.network.members
    width = s.labels if run.params.finetune.candidates == "all" else run.params.retrieve.shortlist
    held = [
        *run.process(),
        run.embedded("bags of labels", s.labels, s.label_pictures, 2),
        run.embedded("bags of valid", s.valid, s.pictures),
        *label_sides(run, s.labels),
        Held("scores of valid", min(s.valid * width, CELLS) * 20.0, "finetune.select"),
    ]
    n = run.network
    flop = s.labels * (n.product(s.label_pictures).forward + n.side.forward)
    flop += s.valid * n.product(s.pictures).forward
    work = [
        Work(what="embed", flop=epochs * flop, shared=True),
        score_work(run, epochs * s.valid, width),
    ]
    return Phase("figures on valid", work, held)
