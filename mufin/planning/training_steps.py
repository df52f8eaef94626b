"""What the steps of Modules I and IV take, and the files of their networks."""

from __future__ import annotations

from mufin.nn.recomputed import PIECE
from mufin.planning import machine as rates
from mufin.planning.networks import EncoderCost
from mufin.planning.run import BF16, FLOAT, INT, LONG, TORCH, Run
from mufin.planning.work import Held, Phase, Work

ADAM = 3  # float32 numbers per parameter beside it: gradient and two moments
SPARSE = 2  # the same for a table of rows: two moments; gradients are those of the step's rows
QUEUED = 3  # steps whose inputs are in memory: one in use, two prepared (`training.loop`)
FRAGMENTS = 1.1  # what torch's allocator takes per byte that tensors take
MINING = 8 * 6  # bytes per datapoint-label pair: the graph, its transpose, sorted keys

Parts = tuple[tuple[float, float], ...]  # (products, pictures of each) of a step


def steps_work(run: Run, steps: float, step: Parts, encoders: dict[str, EncoderCost]) -> Work:
    trained = _as_trained(run, encoders)
    flop = sum(count * run.network.product(m, trained).step for count, m in step)
    return Work(what="encoders and A_S, forward and backward", flop=steps * flop, shared=True)


def _as_trained(run: Run, encoders: dict[str, EncoderCost]) -> dict[str, EncoderCost]:
    """The encoders, in pieces that are computed again where the machine is set to."""
    if not run.machine.recompute:
        return encoders
    return {name: e.recomputed() for name, e in encoders.items()}


def prepare_work(steps: float) -> Work:
    """A thread draws pairs and gathers inputs, and the loop starts the operations of a step."""
    return Work(what="prepare steps", core_seconds=steps * rates.STEP_SECONDS, one_core=True)


def inputs_work(run: Run, steps: float, step: Parts, encoders: dict[str, EncoderCost]) -> Work:
    """What is read from the disk: all inputs once, then those that do not stay in memory.

    An array in the memory of the GPU is not read again; the system keeps files in the memory of
    the host that nothing else takes.
    """
    read, kept = 0.0, 0.6 * run.machine.host
    texts = run.network.texts
    for name, stored in input_arrays(run, encoders).items():
        wanted = steps * sum(c * (m if name == "image" else texts) for c, m in step)
        again = 0.0
        if stored and not run.store_on_gpu(stored):
            again = wanted * encoders[name].stored * max(1 - kept / stored, 0)
        read += stored + again
    return Work(what="read inputs", read=read)


def input_arrays(run: Run, encoders: dict[str, EncoderCost]) -> dict[str, float]:
    """{modality: bytes} of the arrays that the training stages map into memory."""
    s = run.sizes
    counts = {"image": s.images, "text": s.all_texts}
    return {name: float(counts[name]) * e.stored for name, e in encoders.items()}


def step_held(
    run: Run, step: Parts, encoders: dict[str, EncoderCost], scores: float, with_tables: bool
) -> list[Held]:
    """Memory of a training step (`training.loop`, `training.optimisers`).

    Each process encodes its share of the step, and computes the loss of all of it
    (`training.distributed`).
    """
    step = tuple((count / run.machine.processes, m) for count, m in step)
    s, n, gpu = run.sizes, run.network, run.machine.has_gpu
    section = "finetune" if with_tables else "pretrain"
    trained = n.parameters + sum(e.trainable for e in encoders.values())
    share = BF16 if gpu else 1.0
    piece = 0.0
    if run.machine.recompute:
        own_steps = {
            "text": n.texts * sum(c for c, _ in step),
            "image": sum(c * m for c, m in step),
        }
        piece = share * sum(
            e.trained.saved * min(PIECE, own_steps[name]) for name, e in encoders.items()
        )
        encoders = _as_trained(run, encoders)
    # A_S computes in float32; what encoders keep for the backward pass is in bf16 on a GPU
    saved = sum(c * n.self_attention.saved for c, _ in step)
    own = {"text": n.texts, "image": 0.0}
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
        Held("a checkpoint", 2 * checkpoint(run, with_tables), "encoder.dim"),
    ]
    if n.terms:
        table = n.terms * n.dim * FLOAT * float(SPARSE)
        held.append(Held("moments of title words", table, "encoder.lexical.max_terms", True))
    for name, size in input_arrays(run, encoders).items():
        if run.store_on_gpu(size):
            held.append(Held(f"inputs of {name} encoder", size, "", True))
    return held


def table(run: Run, copies: float) -> float:
    """Bytes of eta and alpha of all labels (`nn.classifiers`), so many times."""
    n, kind = run.network, run.params.transfer.classifier
    numbers = n.labels * (n.dim + (1 if kind == "mufin" else 0))
    return FLOAT * copies * numbers


def has_half_tables(run: Run) -> bool:
    """Whether Module IV holds eta in bfloat16 (`training.fused_adamw`)."""
    return run.params.finetune.free_precision == "bf16"


def trained_tables(run: Run, copies: float) -> float:
    """Bytes of eta and alpha as Module IV holds them, so many times."""
    size, numbers = table(run, copies), run.network.labels * run.network.dim
    return size - copies * numbers * FLOAT / 2 if has_half_tables(run) else size


def checkpoint(run: Run, with_tables: bool) -> float:
    """Bytes of a checkpoint: weights and moments (`training.checkpoints`); none of what is frozen
    moves, but all weights are written.
    """
    n = run.network
    size = FLOAT * (n.all_parameters + 2 * n.trainable + 2.0 * n.terms * n.dim)
    return size + (trained_tables(run, 1 + SPARSE) if with_tables else 0.0)


def model_file(run: Run, with_tables: bool) -> float:
    """Bytes of all members (`artifacts.models`)."""
    n, own = run.network, FLOAT * run.network.all_parameters
    centroids = run.params.transfer.classifier == "prime"
    tables = table(run, 1) + (FLOAT * n.labels * n.dim if centroids else 0)
    return n.members * (own + (tables if with_tables else 0.0))


def loading(run: Run, folders: dict[str, bool]) -> Phase:
    """Members, and the files that they are read from (`nn.assembly.load_members`).

    `folders` are those of networks, and whether these have classifiers.
    """
    size = sum(model_file(run, tables) for tables in folders.values())
    held = [Held("the process", TORCH), Held("members and their files", 2 * size, "encoder.dim")]
    return Phase("load members", [Work(what="read", read=size)], held)


def embeddings_file(run: Run) -> float:
    """Bytes of `data/embeddings/pretrain.safetensors` (`artifacts.embeddings`)."""
    s, n = run.sizes, run.network
    rows = s.labels * n.rows(s.label_pictures) + 2 * s.labels + run.splits
    return rows * n.joint * FLOAT + (s.labels + 1) * LONG
