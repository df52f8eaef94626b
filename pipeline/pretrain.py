"""Module I: train E_V, E_T and A_S on labels and their datapoints (MUFIN Sec. 3.1).

python -m pipeline.pretrain            one process; torchrun --nproc-per-node=<n> -m pipeline.pretrain: several GPUs
"""

from __future__ import annotations

from pathlib import Path

from mufin import runtime
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import Architecture, new_member, save_members
from mufin.nn.mufin import Mufin
from mufin.params import Params, Pretrain, load_params
from mufin.training import distributed
from mufin.training.curves import CurveFile
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.pretraining import Pretraining


def main(home: runtime.Home = Path(".")):
    """Module I: train E_V, E_T and A_S on labels and their datapoints."""
    params = load_params(home / "params.yaml")
    distributed.start(runtime.device())
    curated, precomputed = home / "data/curated", home / "data/precomputed"
    data = read_curated(curated)
    store = DescriptorStore(precomputed, list(params.encoder.modalities), runtime.device())
    settings = (params.seed, params.encoder, params.attention, params.pretrain)
    curve = CurveFile(home / "metrics/pretrain.csv", distributed.rank() == 0)
    members, scratch = [], []
    with runtime.measured("pretrain", home) as report:
        for number in range(params.members):
            machine = _machine((settings, number), [curated, precomputed])
            member = new_member(
                _architecture(params), Precomputed(precomputed), params.seed + number
            )
            _train(
                member.network, data, store, params.pretrain, params.seed + number, machine, curve
            )
            member.network.cpu()
            members.append(member)
            scratch.append(machine.scratch)
        report.items = curve.worked(len(data.labels))
        report.facts = {
            "loss": curve.last_loss(),
            "optimiser": "AdamW; SparseAdam for lexical vectors",
        }
    if distributed.rank() == 0:
        save_members(members, home / "models/pretrain")
        for folder in scratch:
            runtime.discard(folder)
    distributed.barrier()


def _machine(settings: object, inputs: list[Path]) -> Machine:
    mark = runtime.fingerprint(settings, inputs, Path(__file__))
    return Machine(
        runtime.device(),
        runtime.precision(),
        runtime.scratch("pretrain", mark),
        runtime.checkpoint_seconds(),
    )


def _architecture(params: Params) -> Architecture:
    encoder, attention = params.encoder, params.attention
    return Architecture(
        modalities=list(encoder.modalities),
        dim=encoder.dim,
        projection=encoder.projection,
        standardise=encoder.standardise,
        text_dropout=encoder.input_dropout,
        image_dropout=encoder.image_dropout,
        modality_dropout=encoder.modality_dropout,
        gates=attention.gates,
        image_gate=attention.image_gate,
        heads=attention.heads,
        dropout=attention.dropout,
        a_s=attention.a_s,
    )


def _train(
    network: Mufin,
    data: Curated,
    store: DescriptorStore,
    s: Pretrain,
    seed: int,
    machine: Machine,
    curve: CurveFile,
) -> None:
    network.to(machine.device)
    train_split = data.train
    job = Pretraining(
        network,
        store,
        train_split.product,
        data.labels,
        train_split.labels,
        train_split.excluded,
        s,
        seed,
        machine,
    )
    rates = Rates(
        encoder=s.lr,
        new=s.lr * s.new_lr_factor,
        gates=s.lr * s.gates_lr_factor,
        lexical=s.lr * s.lexical_lr_factor,
        attention=s.lr,
        free=s.lr,
    )
    optimisers = Optimisers(network, rates, s.weight_decay, with_cross_attention=False)
    train(job, optimisers, seed, s.warmup_iterations, machine, curve.member())
    network.cross_attention.requires_grad_(True)


if __name__ == "__main__":
    runtime.run(main)
