"""Module I: train E_V, E_T and A_S on labels and their datapoints (MUFIN Sec. 3.1).

python -m pipeline.pretrain            one process; torchrun --nproc-per-node=<n> -m pipeline.pretrain: several GPUs
"""

from __future__ import annotations

from pathlib import Path

from pipeline import runtime
from pipeline.curves import write_curve
from pipeline.inputs import Curated, machine, open_store, read_curated
from pipeline.model_files import new_mufin, save_members
from pipeline.nn.mufin import Mufin
from pipeline.params import Params, load_params
from pipeline.training import distributed
from pipeline.training.loop import Machine, train
from pipeline.training.optimisers import Optimisers, Rates
from pipeline.training.pretraining import Pretraining


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    model: Path = Path("models/pretrain"),
    metrics: Path = Path("metrics/pretrain.json"),
    curve: Path = Path("metrics/pretrain.csv"),
):
    """Module I: train E_V, E_T and A_S on labels and their datapoints."""
    params = load_params()
    distributed.start(runtime.device())
    data, store = read_curated(curated), open_store(precomputed, params)
    settings = (params.seed, params.encoder, params.attention, params.pretrain)
    with runtime.measured(metrics) as report:
        members, curves, machines = [], [], []
        for number in range(params.members):
            machines.append(machine("pretrain", settings, [curated, precomputed], number))
            network = new_mufin(params, precomputed, params.seed + number)
            curves.append(_train(network, data, store, params, params.seed + number, machines[-1]))
            members.append(network.cpu())
        report |= {"items": round(sum(len(data.labels) * row["part"] for c in curves for row in c)),
                   "loss": curves[-1][-1]["loss"],
                   "optimiser": "AdamW; SparseAdam for lexical vectors", "device": str(runtime.device())}
    if distributed.rank() == 0:
        write_curve(curves, curve)
        save_members(members, model)
        for used in machines:
            runtime.discard(used.scratch)
    distributed.barrier()


def _train(network: Mufin, data: Curated, store, params: Params, seed: int, where: Machine) -> list[dict]:
    s = params.pretrain
    network.to(where.device)
    job = Pretraining(network, store, data.train.product, data.labels, data.train.labels, data.train.excluded, s, seed,
                      where)
    rates = Rates(encoder=s.lr, new=s.lr * s.new_lr_factor, gates=s.lr * s.gates_lr_factor,
                  lexical=s.lr * s.lexical_lr_factor, attention=s.lr, free=s.lr)
    rows = train(job, Optimisers(network, rates, s.weight_decay, with_cross_attention=False), seed,
                 s.warmup_iterations, where)
    network.cross_attention.requires_grad_(True)
    return rows


if __name__ == "__main__":
    runtime.run(main)
