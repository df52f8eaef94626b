"""A plan as lines of text and as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from mufin.planning import machine as rates
from mufin.planning.machine import Machine
from mufin.planning.plan import GB, Plan, gigabytes, misfits, number
from mufin.planning.work import Stage

HOUR = 3600.0
HEADS = (
    ("stage", 10),
    ("FLOP", 8),
    ("GB written", 12),
    ("GB read", 10),
    ("GB memory", 11),
    ("GB GPU", 8),
    ("h GPU", 8),
    ("h CPU", 9),
)


def lines(plan: Plan) -> Iterator[str]:
    """What the command prints: sizes, the table, what does not fit, assumptions."""
    yield from _sizes(plan)
    yield ""
    yield from table(plan)
    yield ""
    yield from _verdict(plan)
    yield ""
    yield from _assumptions(plan)


def table(plan: Plan) -> Iterator[str]:
    """A line per stage and one of sums or peaks."""
    yield _row([head for head, _ in HEADS])
    rows = [_figures(plan, place) for place in range(len(plan.stages))]
    for stage, row in zip(plan.stages, rows):
        yield _row([stage.name, *_texts(row)])
    columns = list(zip(*rows))
    joined = [max if place in (3, 4) else sum for place in range(len(columns))]
    yield _row(["all", *_texts([how(column) for how, column in zip(joined, columns)])])


def _figures(plan: Plan, place: int) -> list[float]:
    """FLOP, GB written and read, peaks of memory in GB, hours with and without a GPU."""
    stage, machine = plan.stages[place], plan.run.machine
    (gpu, with_gpu), (cpu, without) = plan.with_gpu, plan.without_gpu
    return [
        stage.flop,
        stage.written / GB,
        stage.read / GB,
        stage.peak(machine, False)[0] / GB,
        stage.peak(machine, True)[0] / GB,
        with_gpu[place].seconds(gpu.machine) / HOUR,
        without[place].seconds(cpu.machine) / HOUR,
    ]


def _texts(figures: list[float]) -> list[str]:
    flop, *others = figures
    return [f"{flop:.1e}" if flop else "0", *map(number, others)]


def _row(cells: list[str]) -> str:
    first, *others = cells
    widths = [width for _, width in HEADS]
    return f"{first:{widths[0]}}" + "".join(f"{c:>{w}}" for c, w in zip(others, widths[1:]))


def _sizes(plan: Plan) -> Iterator[str]:
    s = plan.run.sizes
    yield "sizes:"
    for name, value in asdict(s).items():
        unknown = name in ("terms", "vocabulary") and not value
        titles_alone = name in ("texts", "most_texts") and s.most_texts == 1
        if name == "origins" or unknown or titles_alone:
            continue
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        yield f"  {NAMES[name]:32} {text:>14}  {s.origins.get(name, '')}".rstrip()


NAMES = {
    "products": "products",
    "labels": "labels",
    "unseen": "labels not seen in training",
    "train": "train datapoints",
    "valid": "valid datapoints",
    "test": "test datapoints",
    "images": "distinct pictures",
    "pictures": "pictures per datapoint",
    "label_pictures": "pictures per label",
    "longest": "pictures per product, at most",
    "relations": "labels per train datapoint",
    "tokens": "tokens per text",
    "picture_bytes": "bytes of a picture",
    "texts": "texts per product",
    "most_texts": "texts per product, at most",
    "terms": "title words with a vector",
    "vocabulary": "tokens of random E_T",
}


def _verdict(plan: Plan) -> Iterator[str]:
    machine, problems = plan.run.machine, misfits(plan.run, plan.stages)
    gpu = f"{gigabytes(machine.gpu)} of GPU memory" if machine.has_gpu else "no GPU"
    if machine.has_gpu and machine.processes > 1:
        gpu = f"{gigabytes(machine.gpu)} of memory of each of {machine.processes} GPUs"
    where = f"{gigabytes(machine.host)} of memory, {gpu}, {gigabytes(machine.disk)} free on disk"
    yield f"does not fit in {where}:" if problems else f"fits in {where}"
    for problem in problems:
        yield f"  {problem}"


def _assumptions(plan: Plan) -> Iterator[str]:
    m = plan.run.machine
    yield "assumed:"
    gpu, share = plan.with_gpu[0].machine.gpu, f"{100 * m.gpu_share:.0f} %"
    yield (
        f"  GPU: {gigabytes(gpu)}; {share} of {m.gpu_flop / 1e12:,.0f} TFLOP/s in bf16 and of "
        f"{m.gpu_full_flop / 1e12:,.0f} in float32; {gigabytes(m.gpu_moved)} per second moved"
    )
    yield (
        f"  CPU: {m.cores} cores; {100 * m.cpu_share:.0f} % of {m.cpu_flop / 1e9:,.0f} GFLOP/s "
        f"in float32; {gigabytes(m.cpu_moved)} per second moved"
    )
    if m.processes > 1:
        yield (
            f"  MUFIN_PROCESSES: {m.processes} in pretrain, retrieve, finetune, index, folds, "
            "evaluate, each with a GPU of its own, or on the cores; memory is that of all of them"
        )
    disk = gigabytes(m.disk_per_second)
    yield f"  disk: {disk} per second; DVC's cache has a second copy of all files"
    yield (
        f"  one core: {rates.PICTURES:,.0f} pictures decoded, {rates.TITLES:,.0f} titles tokenised "
        f"and {rates.GRAPH_ROWS:,.0f} rows added to a graph per second"
    )
    for cost in plan.run.network.encoders.values():
        if cost.assumed:
            yield f"  {cost.assumed}"


def document(plan: Plan) -> dict:
    """The plan for `--json`; bytes are bytes, times are seconds."""
    run, s = plan.run, asdict(plan.run.sizes)
    origins = s.pop("origins")
    return {
        "sizes": s,
        "origins": origins,
        "machine": asdict(run.machine),
        "stages": [_stage(plan, place) for place in range(len(plan.stages))],
        "does_not_fit": misfits(run, plan.stages),
        "assumed": [c.assumed for c in run.network.encoders.values() if c.assumed],
    }


def _stage(plan: Plan, place: int) -> dict:
    stage, machine = plan.stages[place], plan.run.machine
    (gpu, with_gpu), (cpu, without) = plan.with_gpu, plan.without_gpu
    return {
        "stage": stage.name,
        "flop": stage.flop,
        "read": stage.read,
        "written": stage.written,
        "files": stage.files,
        "scratch": stage.scratch,
        "memory": stage.peak(machine, False)[0],
        "gpu_memory": stage.peak(machine, True)[0],
        "seconds_gpu": with_gpu[place].seconds(gpu.machine),
        "seconds_cpu": without[place].seconds(cpu.machine),
        "refused": stage.refused,
        "phases": [_phase(stage, number, machine) for number in range(len(stage.phases))],
    }


def _phase(stage: Stage, place: int, machine: Machine) -> dict:
    phase = stage.phases[place]
    return {
        "phase": phase.what,
        "seconds": phase.seconds(machine),
        "memory": {h.what: h.size for h in phase.held_by(machine, False)},
        "gpu_memory": {h.what: h.size for h in phase.held_by(machine, True)},
    }
