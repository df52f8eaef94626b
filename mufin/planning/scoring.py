"""Costs of classifier scores (`ranking.scoring`)."""

from __future__ import annotations

from mufin.planning.run import Run
from mufin.planning.work import Held, Work
from mufin.ranking.scoring import GPU_HELD, HELD

CHUNK = 2**25 * 4.0  # bytes of a chunk of scores (`classifier_scores`, budget)
GPU_CHUNKS = 16  # on a GPU a chunk is so many times as large
SIDES, CHUNKS = "label sides", "a chunk of scores"


def side_bytes(run: Run, labels: float) -> float:
    """Bytes of what the scores need of all labels, of all members (`nn.label_side`).

    Bags are padded to the largest one.
    """
    return run.network.members * labels * run.network.side_bytes


def most_sides(run: Run) -> float:
    """Bytes of label sides that are held at once; more are computed in blocks of labels."""
    return float(GPU_HELD if run.machine.has_gpu else HELD)


def label_sides(run: Run, labels: float) -> list[Held]:
    """What `ranking.scoring.label_sides` keeps on the device: one kind, or a block of it."""
    setting = "download.max_images, encoder.dim"
    chunk = CHUNK * (GPU_CHUNKS if run.machine.has_gpu else 1)
    chunk = min(chunk, run.asked * labels * run.network.side_bytes)
    return [
        Held(SIDES, min(side_bytes(run, labels), most_sides(run)), setting, True),
        Held(CHUNKS, chunk, "", True),
    ]


def score_work(run: Run, datapoints: float, candidates: float) -> Work:
    """Scores of so many candidates per datapoint, by all members."""
    n = run.network
    pairs = datapoints * min(candidates, run.sizes.labels)
    # Each datapoint has a copy of the sides of its labels
    return Work(
        what="classifier scores",
        flop=n.members * pairs * n.score.forward,
        full=True,
        moved=n.members * pairs * n.side_bytes * 2,
        shared=True,
    )
