"""Costs of the stages pretrain and transfer (Modules I and III)."""

from __future__ import annotations

from mufin.planning.run import FLOAT, TORCH, Run
from mufin.planning.training_steps import (
    MINING,
    checkpoint,
    embeddings_file,
    inputs_work,
    model_file,
    prepare_work,
    step_held,
    steps_work,
)
from mufin.planning.work import Held, Phase, Stage, Work, in_processes


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
        steps_work(run, steps, step, n.encoders),
        inputs_work(run, steps, step, n.encoders),
        prepare_work(steps),
    ]
    if refreshes := _refreshes(run):
        flop = anchors * n.product(of_anchor).forward + others * n.product(of_other).forward
        flop *= n.members * refreshes
        work.append(Work(what="look for hard pairs", flop=flop, shared=True))
    scores = batch * drawn * FLOAT * 6.0
    held = step_held(run, step, n.encoders, scores, with_tables=False)
    held.append(Held("pairs of train", s.pairs * MINING, "curate.max_products"))
    phases = [Phase("train", work, held, overlaps=True)]
    if refreshes:
        embedded = [
            run.embedded("bags of datapoints", s.train, s.pictures, 1 if first else 2),
            run.embedded("bags of labels", s.labels, s.label_pictures),
        ]
        phases.append(Phase("look for hard pairs", [], [*held, *embedded]))
    phases = in_processes(phases)
    return Stage(
        "pretrain", phases, {"models/pretrain": model_file(run, False)}, checkpoint(run, False)
    )


def _refreshes(run: Run) -> int:
    p = run.params.pretrain
    clustered = p.batching in ("clusters", "datapoint_clusters")
    if not (p.hard_positives or clustered):
        return 0
    return max(-(-(p.epochs - p.random_epochs) // p.refresh_epochs), 0)


def transfer(run: Run) -> Stage:
    """Module III (`nn.assembly`, `transferred`): members, embeddings of Module I, new tables."""
    written = model_file(run, True)
    held = [
        Held("the process", TORCH),
        Held("members", written + model_file(run, False), "members"),
        Held("a member while it is written", written / run.network.members, "encoder.dim"),
        Held("data/embeddings", embeddings_file(run), "encoder.dim"),
    ]
    work = [Work(what="read", read=model_file(run, False) + embeddings_file(run))]
    return Stage("transfer", [Phase("new tables", work, held)], {"models/transfer": written})
