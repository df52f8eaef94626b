"""Module I: trains E_V, E_T and A_S on pairs of labels and datapoints (MUFIN Sec. 3.1).

One process:  python -m pipeline.pretrain
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.pretrain, or torchrun
"""

from __future__ import annotations

from pathlib import Path

from mufin import devices, process_group, processes, runtime
from mufin.artifacts.curated import read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import Architecture, new_member, save_members
from mufin.params import Params, Pretrain, load_params
from mufin.training.contraction import ContractionWarning
from mufin.training.curves import Curve, CurveFile
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.pretraining import Pretraining


def main(home: runtime.Home = Path(".")) -> None:
    """Module I: train the encoders and A_S on labels and their datapoints."""
    params = load_params(home / "params.yaml")
    process_group.start(devices.device())
    curated, precomputed = home / "data/curated", home / "data/precomputed"
    data = read_curated(curated)
    store = DescriptorStore(precomputed, list(params.encoder.modalities), devices.device())
    settings = (params.seed, params.encoder, params.attention, params.pretrain)
    first = process_group.rank() == 0
    curve = CurveFile(home / "metrics/pretrain.csv", first)
    warn = ContractionWarning(params.pretrain.loss, params.pretrain.epochs, first)
    members, scratch = [], []
    with runtime.measured("pretrain", home) as report:
        for number in range(params.members):
            seed = params.seed + number
            machine = _machine((settings, number), [curated, precomputed])
            member = new_member(_architecture(params), Precomputed(precomputed), seed)
            network = member.network.to(machine.device)
            network.recompute = devices.recompute()
            job = Pretraining(
                network, store, data.train, data.labels, params.pretrain, seed, machine
            )
            _train(job, params.pretrain, curve, warn)
            network.cpu()
            members.append(member)
            scratch.append(machine.scratch)
        report.items = curve.worked(len(data.labels))
        report.facts = {
            "loss": curve.last_loss(),
            "optimiser": "AdamW; SparseAdam for lexical vectors",
        }
    if process_group.rank() == 0:
        save_members(members, home / "models/pretrain", Precomputed(home / "data/precomputed"))
        for folder in scratch:
            runtime.discard(folder)
    process_group.barrier()


def _machine(settings: object, inputs: list[Path]) -> Machine:
    """The machine, with a scratch folder that only a run of the same settings and inputs shares."""
    mark = runtime.fingerprint(settings, inputs, Path(__file__))
    return Machine(
        devices.device(),
        devices.precision(),
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
        lexical_dropout=encoder.lexical_dropout,
        descriptor_norm=encoder.descriptor_norm,
        modality_dropout=encoder.modality_dropout,
        gates=attention.gates,
        image_gate=attention.image_gate,
        pool=attention.pool,
        heads=attention.heads,
        dropout=attention.dropout,
        a_s=attention.a_s,
        fusion=encoder.fusion if encoder.fuses_early else "late",
        fused_images=encoder.fused_images,
    )


def _train(job: Pretraining, s: Pretrain, file: CurveFile, warn: ContractionWarning) -> None:
    write = file.member()

    def on_epoch(curve: Curve) -> None:
        write(curve)
        warn(curve)

    rates = Rates(
        encoder=s.lr,
        new=s.lr * s.new_lr_factor,
        gates=s.lr * s.gates_lr_factor,
        lexical=s.lr * s.lexical_lr_factor,
        attention=s.lr,
        free=s.lr,
    )
    optimisers = Optimisers(
        job.model,
        rates,
        s.weight_decay,
        with_cross_attention=False,
        lexical_weight_decay=s.lexical_weight_decay,
    )
    train(
        job, optimisers, job.seed, s.warmup_iterations, job.machine, on_epoch, schedule=s.schedule
    )
    job.model.cross_attention.requires_grad_(True)  # trains in Module IV


if __name__ == "__main__":
    runtime.run(main, processes.launch, process_group.leave)
