"""Module IV: train classifiers, A_C and the encoders on the shortlists (MUFIN Sec. 3.1).

python -m pipeline.finetune            one process; torchrun --nproc-per-node=<n> -m pipeline.finetune: several GPUs
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline import runtime
from pipeline.artifacts import read_table
from pipeline.curves import write_curve
from pipeline.inputs import Curated, machine, open_store, read_curated
from pipeline.model_files import load_members, save_members
from pipeline.nn.mufin import Mufin
from pipeline.params import Finetune, Params, load_params
from pipeline.ragged import Lists
from pipeline.recommender import valid_figures
from pipeline.training import distributed
from pipeline.training.encoded import encoders_held
from pipeline.training.finetuning import Finetuning
from pipeline.training.loop import Machine, train
from pipeline.training.optimisers import Optimisers, Rates


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    shortlists: Path = Path("data/shortlists"),
    start: Path = Path("models/transfer"),
    model: Path = Path("models/finetune"),
    metrics: Path = Path("metrics/finetune.json"),
    curve: Path = Path("metrics/finetune.csv"),
):
    """Module IV: train classifiers and cross-attention on the shortlists."""
    params = load_params()
    distributed.start(runtime.device())
    data, store = read_curated(curated), open_store(precomputed, params)
    lists = {n: Lists.of_column(read_table(shortlists / f"{n}.parquet", "shortlist")["labels"])
             for n in ("train", "valid")}
    settings = (params.seed, params.encoder.modalities, params.finetune)       # the rest is in what transfer wrote
    with runtime.measured(metrics) as report:
        members, curves, machines = load_members(start, precomputed), [], []
        for number, network in enumerate(members):
            machines.append(machine("finetune", settings, [curated, precomputed, shortlists, start], number))
            curves.append(_train(network, data, store, lists, params, params.seed + number, machines[-1]))
            network.cpu()
        report |= {"items": round(sum(len(data.train) * row["part"] for c in curves for row in c)),
                   "loss": curves[-1][-1]["loss"],
                   "optimiser": _optimiser(params.finetune), "device": str(runtime.device()),
                   "alpha_mean": round(float(members[0].classifiers.mix.weight.detach().sigmoid().mean()), 4)}
    if distributed.rank() == 0:
        write_curve(curves, curve)
        save_members(members, model)
        for used in machines:
            runtime.discard(used.scratch)
    distributed.barrier()


def _train(network: Mufin, data: Curated, store, lists: dict[str, Lists], params: Params, seed: int,
           where: Machine) -> list[dict]:
    s = params.finetune
    network.to(where.device)

    held = contextlib.nullcontext(store) if s.train_encoders else encoders_held(network, store, where.device, where.precision)
    with held as inputs:
        return _run(network, data, inputs, lists, s, seed, where)


def _run(network: Mufin, data: Curated, store, lists: dict[str, Lists], s: Finetune, seed: int,
         where: Machine) -> list[dict]:
    def validate(model: Mufin) -> dict[str, float]:
        candidates = None if s.candidates == "all" else lists["valid"]
        return valid_figures(model, store, data.labels, data.splits["valid"], candidates, where)

    job = Finetuning(network, store, data.train.product, data.labels, data.train.labels, data.train.excluded,
                     lists["train"], s, seed, validate)
    rates = Rates(encoder=s.lr, new=s.lr, gates=s.lr * s.gates_lr_factor, lexical=s.lr * s.lexical_lr_factor,
                  attention=s.lr * s.attention_lr_factor, free=s.lr * s.free_lr_factor)
    optimisers = Optimisers(network, rates, s.weight_decay, with_cross_attention=True, dense_tables=s.free_update == "dense")
    rows = train(job, optimisers, seed, s.warmup_iterations, where)
    job.finish()
    return rows


def _optimiser(s: Finetune) -> str:
    """For the metrics: which optimiser moved what."""
    if s.free_update == "dense":
        return "AdamW; SparseAdam for lexical vectors"
    return "AdamW; SparseAdam for eta, alpha and lexical vectors"


if __name__ == "__main__":
    runtime.run(main)
