"""Costs of the stages pretrain, transfer and finetune (Modules I, III and IV)."""

from __future__ import annotations

from mufin.nn.recomputed import PIECE
from mufin.planning import machine as rates
from mufin.planning.network import Network
from mufin.planning.networks import EncoderCost
from mufin.planning.run import BF16, CUDA_DEVICE, FLOAT, INT, LONG, TORCH, Run
from mufin.planning.scoring import label_sides, score_work
from mufin.planning.work import Held, Phase, Stage, Work
from mufin.ranking.validation import CELLS
from mufin.training.every_label import labels_per_block
from mufin.training.table_updates import dense_pays

ADAM = 3  # float32 numbers per parameter beside it: gradient and two moments
SPARSE = 2  # the same for a table of rows: two moments; gradients are those of the step's rows
UPDATED = 10  # float32 numbers per number of a block of eta in bfloat16, while it is updated
QUEUED = 3  # steps whose inputs are in memory: one in use, two prepared (`training.loop`)
FRAGMENTS = 1.1  # what torch's allocator takes per byte that tensors take
MINING = 8 * 6  # bytes per datapoint-label pair: the graph, its transpose, sorted keys
NEGATIVES = 8  # bytes per shortlisted label: blocks of negatives, then these put together


def pretrain(run: Run) -> Stage:
    """Module I (`training.pretraining`): every label, and `pretrain.positives` datapoints of each.

    Every product of a step is encoded once, forward and backward. Every `refresh_epochs` epochs
    all labels and datapoints are embedded, if something hard is looked for.
    """
    s, p, n = run.sizes, run.params.pretrain, run.network
    first = p.batching in ("datapoints", "datapoint_clusters")  # whether anchors are datapoints
    anchors, others = (s.train, s.labels) if first else (s.labels, s.train)
    of_anchor, of_other = (
        (s.pictures, s.label_pictures) if first else (s.label_pictures, s.pictures)
    )
    batch = min(p.batch_size, anchors)
    drawn = min(batch * p.positives, others)
    step = (batch, of_anchor), (drawn, of_other)
    steps = p.epochs * anchors / max(batch, 1) * n.members
    work = [
        _steps(run, steps, step, n.encoders),
        _inputs(run, steps, step, n.encoders),
        _prepared(steps),
    ]
    if refreshes := _refreshes(run):
        flop = anchors * n.product(of_anchor).forward + others * n.product(of_other).forward
        work.append(Work(what="look for hard pairs", flop=n.members * refreshes * flop))
    scores = batch * drawn * FLOAT * 6.0
    held = _trained(run, step, n.encoders, scores, with_tables=False)
    held.append(Held("pairs of train", s.pairs * MINING, "curate.max_products"))
    phases = [Phase("train", work, held, overlaps=True)]
    if refreshes:
        embedded = [
            run.embedded("bags of datapoints", s.train, s.pictures, 1 if first else 2),
            run.embedded("bags of labels", s.labels, s.label_pictures),
        ]
        phases.append(Phase("look for hard pairs", [], [*held, *embedded]))
    return Stage(
        "pretrain", phases, {"models/pretrain": _model_file(run, False)}, _checkpoint(run, False)
    )


def _refreshes(run: Run) -> int:
    p = run.params.pretrain
    clustered = p.batching in ("clusters", "datapoint_clusters")
    if not (p.hard_positives or clustered):
        return 0
    return max(-(-(p.epochs - p.random_epochs) // p.refresh_epochs), 0)


Parts = tuple[tuple[float, float], ...]  # (products, pictures of each) of a step


def _steps(run: Run, steps: float, step: Parts, encoders: dict[str, EncoderCost]) -> Work:
    trained = _as_trained(run, encoders)
    flop = sum(count * run.network.product(m, trained).step for count, m in step)
    return Work(what="encoders and A_S, forward and backward", flop=steps * flop)


def _as_trained(run: Run, encoders: dict[str, EncoderCost]) -> dict[str, EncoderCost]:
    """The encoders, in pieces that are computed again where the machine is set to."""
    if not run.machine.recompute:
        return encoders
    return {name: e.recomputed() for name, e in encoders.items()}


def _prepared(steps: float) -> Work:
    """A thread draws pairs and gathers inputs, and the loop starts the operations of a step."""
    return Work(what="prepare steps", core_seconds=steps * rates.STEP_SECONDS, one_core=True)


def _inputs(run: Run, steps: float, step: Parts, encoders: dict[str, EncoderCost]) -> Work:
    """What is read from the disk: all inputs once, then those that do not stay in memory.

    An array in the memory of the GPU is not read again; the system keeps files in the memory of
    the host that nothing else takes.
    """
    read, kept = 0.0, 0.6 * run.machine.host
    for name, stored in _arrays(run, encoders).items():
        wanted = steps * sum(c * (m if name == "image" else 1) for c, m in step)
        again = 0.0
        if stored and not run.store_on_gpu(stored):
            again = wanted * encoders[name].stored * max(1 - kept / stored, 0)
        read += stored + again
    return Work(what="read inputs", read=read)


def _arrays(run: Run, encoders: dict[str, EncoderCost]) -> dict[str, float]:
    """{modality: bytes} of the arrays that the training stages map into memory."""
    s = run.sizes
    counts = {"image": s.images, "text": s.products}
    return {name: float(counts[name]) * e.stored for name, e in encoders.items()}


def _trained(
    run: Run, step: Parts, encoders: dict[str, EncoderCost], scores: float, with_tables: bool
) -> list[Held]:
    """Memory of a training step (`training.loop`, `training.optimisers`)."""
    s, n, gpu = run.sizes, run.network, run.machine.has_gpu
    section = "finetune" if with_tables else "pretrain"
    trained = n.parameters + sum(e.trainable for e in encoders.values())
    share = BF16 if gpu else 1.0
    piece = 0.0
    if run.machine.recompute:
        own_steps = {"text": sum(c for c, _ in step), "image": sum(c * m for c, m in step)}
        piece = share * sum(
            e.trained.saved * min(PIECE, own_steps[name]) for name, e in encoders.items()
        )
        encoders = _as_trained(run, encoders)
    # A_S computes in float32; what encoders keep for the backward pass is in bf16 on a GPU
    saved = sum(c * n.self_attention.saved for c, _ in step)
    own = {"text": 1.0, "image": 0.0}
    for name, e in encoders.items():
        saved += share * e.trained.saved * sum(c * (own[name] or m) for c, m in step)
    inputs = sum(c * n.input_bytes(m, encoders) for c, m in step)
    batch, depth = f"{section}.batch_size", "encoder.text.trainable_layers"
    changes = f"{batch}, {depth}" + ("" if run.machine.recompute else ", or MUFIN_RECOMPUTE=1")
    held = [
        *run.process(),
        Held("gradients and moments of AdamW", trained * ADAM * FLOAT, depth, True),
        Held("kept for the backward pass", FRAGMENTS * (saved + piece), changes, True),
        Held("inputs of a step on the device", inputs * 2.0, batch, True),
        Held("inputs of the next steps", inputs * QUEUED, batch),
        Held("scores", scores, batch, True),
        Held("lists of pictures and lengths", s.references * INT + s.products * 3.0 * LONG),
        Held("a checkpoint", 2 * _checkpoint(run, with_tables), "encoder.dim"),
    ]
    if n.terms:
        table = n.terms * n.dim * FLOAT * float(SPARSE)
        held.append(Held("moments of title words", table, "encoder.lexical.max_terms", True))
    for name, size in _arrays(run, encoders).items():
        if run.store_on_gpu(size):
            held.append(Held(f"inputs of {name} encoder", size, "", True))
    return held


def table(run: Run, copies: float) -> float:
    """Bytes of eta and alpha of all labels (`nn.classifiers`), so many times."""
    n, kind = run.network, run.params.transfer.classifier
    numbers = n.labels * (n.dim + (1 if kind == "mufin" else 0))
    return FLOAT * copies * numbers


def _half(run: Run) -> bool:
    """Whether Module IV holds eta in bfloat16 (`training.fused_adamw`)."""
    return run.params.finetune.free_precision == "bf16"


def _trained_tables(run: Run, copies: float) -> float:
    """Bytes of eta and alpha as Module IV holds them, so many times."""
    size, numbers = table(run, copies), run.network.labels * run.network.dim
    return size - copies * numbers * FLOAT / 2 if _half(run) else size


def _checkpoint(run: Run, with_tables: bool) -> float:
    """Bytes of a checkpoint: weights and moments (`training.checkpoints`); none of what is frozen
    moves, but all weights are written.
    """
    n = run.network
    size = FLOAT * (n.all_parameters + 2 * n.trainable + 2.0 * n.terms * n.dim)
    return size + (_trained_tables(run, 1 + SPARSE) if with_tables else 0.0)


def _model_file(run: Run, with_tables: bool) -> float:
    """Bytes of all members (`artifacts.models`)."""
    n, own = run.network, FLOAT * run.network.all_parameters
    centroids = run.params.transfer.classifier == "prime"
    tables = table(run, 1) + (FLOAT * n.labels * n.dim if centroids else 0)
    return n.members * (own + (tables if with_tables else 0.0))


def transfer(run: Run) -> Stage:
    """Module III (`nn.assembly`, `transferred`): members, embeddings of Module I, new tables."""
    written = _model_file(run, True)
    held = [
        Held("the process", TORCH),
        Held("members", written + _model_file(run, False), "members"),
        Held("a member while it is written", written / run.network.members, "encoder.dim"),
        Held("data/embeddings", embeddings_file(run), "encoder.dim"),
    ]
    work = [Work(what="read", read=_model_file(run, False) + embeddings_file(run))]
    return Stage("transfer", [Phase("new tables", work, held)], {"models/transfer": written})


def loading(run: Run, folders: dict[str, bool]) -> Phase:
    """Members, and the files that they are read from (`nn.assembly.load_members`).

    `folders` are those of networks, and whether these have classifiers.
    """
    size = sum(_model_file(run, tables) for tables in folders.values())
    held = [Held("the process", TORCH), Held("members and their files", 2 * size, "encoder.dim")]
    return Phase("load members", [Work(what="read", read=size)], held)


def embeddings_file(run: Run) -> float:
    """Bytes of `data/embeddings/pretrain.safetensors` (`artifacts.embeddings`)."""
    s, n = run.sizes, run.network
    rows = s.labels * n.rows(s.label_pictures) + 2 * s.labels + run.splits
    return rows * n.joint * FLOAT + (s.labels + 1) * LONG


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
        _steps(run, steps, step, encoders),
        _inputs(run, steps, step, encoders),
        _prepared(steps),
        _scored(run, steps, scored, labels, f.loss == "hinge" and f.candidates != "all"),
        _updates(run, steps, labels),
    ]
    held = _trained(run, step, encoders, _scores_held(run, scored, labels), with_tables=True)
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
    return Stage(
        "finetune", phases, {"models/finetune": _model_file(run, True)}, _checkpoint(run, True)
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
        rows = labels * f.train_labels + UPDATED * block if _half(run) else 2.0 * labels
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
        return Work(what="update all labels", moved=steps * _trained_tables(run, 7))
    moved = steps * labels * (run.network.dim + 1) * 7.0 * FLOAT
    return Work(what="update labels of the step", moved=moved)


def _dense(run: Run, labels: float) -> bool:
    """Whether AdamW updates all rows of eta and alpha; with `auto` as the stage decides."""
    if (chosen := run.params.finetune.free_update) != "auto" or _half(run):
        return chosen != "rows"
    free = None
    if run.machine.has_gpu:
        inputs = filter(run.store_on_gpu, _arrays(run, run.network.encoders).values())
        free = run.machine.gpu - CUDA_DEVICE - sum(inputs)
    count = run.network.labels
    return dense_pays(count, round(table(run, 1) / FLOAT / max(count, 1)), round(labels), free)


def _tables_held(run: Run, labels: float) -> list[Held]:
    f, n = run.params.finetune, run.network
    dense = _dense(run, labels)
    copies = 1 + (ADAM if dense and not _half(run) else SPARSE)
    setting = "encoder.dim, finetune.free_update" if dense else "encoder.dim"
    held = [Held("eta and alpha with their moments", _trained_tables(run, copies), setting, True)]
    if run.params.transfer.classifier == "prime":
        held.append(Held("centroids", n.labels * n.dim * 4.0, "transfer.classifier", True))
    if f.select == "valid":
        held.append(Held("weights of the best epoch", _model_file(run, True), "finetune.select"))
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
    counts = {"image": s.images, "text": s.products}
    for name, e in network.encoders.items():
        if e.kind != "descriptors":
            size += counts[name] * e.width * float(FLOAT)
    return Held("outputs of the encoders", size, "finetune.train_encoders")


def _encode_once(run: Run, network: Network) -> Work:
    s, flop = run.sizes, 0.0
    counts = {"image": s.images, "text": s.products}
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
        Work(what="embed", flop=epochs * flop),
        score_work(run, epochs * s.valid, width),
    ]
    return Phase("figures on valid", work, held)
