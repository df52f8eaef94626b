"""Module IV: train classifiers, A_C and the encoders on the shortlists (MUFIN Sec. 3.1).

python -m pipeline.finetune            one process; torchrun --nproc-per-node=<n> -m pipeline.finetune: several GPUs
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from mufin import runtime
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members, save_members
from mufin.nn.encoded import encoders_held
from mufin.nn.mufin import Mufin
from mufin.params import Finetune, load_params
from mufin.ragged import Lists
from mufin.ranking.validation import valid_figures
from mufin.training import distributed
from mufin.training.curves import CurveFile
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates


def main(home: runtime.Home = Path(".")):
    """Module IV: train classifiers and cross-attention on the shortlists."""
    params = load_params(home / "params.yaml")
    s = params.finetune
    distributed.start(runtime.device())
    curated, precomputed, start = (
        home / "data/curated",
        home / "data/precomputed",
        home / "models/transfer",
    )
    data, shortlists = read_curated(curated), home / "data/shortlists"
    store = DescriptorStore(precomputed, list(params.encoder.modalities), runtime.device())
    lists = {name: _shortlist(shortlists / f"{name}.parquet") for name in ("train", "valid")}
    settings = (params.seed, params.encoder.modalities, s)  # the rest is in what transfer wrote
    curve = CurveFile(home / "metrics/finetune.csv", distributed.rank() == 0)
    scratch = []
    with runtime.measured("finetune", home) as report:
        members = load_members(start, Precomputed(precomputed))
        for number, member in enumerate(members):
            machine = _machine((settings, number), [curated, precomputed, shortlists, start])
            _train(member.network, data, store, lists, s, params.seed + number, machine, curve)
            member.network.cpu()
            scratch.append(machine.scratch)
        alpha = members[0].network.classifiers.mix.weight.detach().sigmoid().mean()
        report.items = curve.worked(len(data.train))
        report.facts = {
            "loss": curve.last_loss(),
            "optimiser": _optimiser(s),
            "alpha_mean": round(float(alpha), 4),
        }
    if distributed.rank() == 0:
        save_members(members, home / "models/finetune")
        for folder in scratch:
            runtime.discard(folder)
    distributed.barrier()


def _shortlist(path: Path) -> Lists:
    return Lists.of_column(read_table(path, "shortlist")["labels"])


def _machine(settings: object, inputs: list[Path]) -> Machine:
    mark = runtime.fingerprint(settings, inputs, Path(__file__))
    return Machine(
        runtime.device(),
        runtime.precision(),
        runtime.scratch("finetune", mark),
        runtime.checkpoint_seconds(),
    )


def _train(
    network: Mufin,
    data: Curated,
    store: DescriptorStore,
    lists: dict[str, Lists],
    s: Finetune,
    seed: int,
    machine: Machine,
    curve: CurveFile,
) -> None:
    network.to(machine.device)
    held = encoders_held(network, store, machine.device, machine.precision)
    with contextlib.nullcontext(store) if s.train_encoders else held as inputs:
        job = _job(network, data, inputs, lists, s, seed, machine)
        rates = Rates(
            encoder=s.lr,
            new=s.lr,
            gates=s.lr * s.gates_lr_factor,
            lexical=s.lr * s.lexical_lr_factor,
            attention=s.lr * s.attention_lr_factor,
            free=s.lr * s.free_lr_factor,
        )
        dense = s.free_update == "dense"
        optimisers = Optimisers(
            network, rates, s.weight_decay, with_cross_attention=True, dense_tables=dense
        )
        train(job, optimisers, seed, s.warmup_iterations, machine, curve.member())
        job.finish()


def _job(
    network: Mufin,
    data: Curated,
    store: DescriptorStore,
    lists: dict[str, Lists],
    s: Finetune,
    seed: int,
    machine: Machine,
) -> Finetuning:
    split = data.train

    def validate(model: Mufin) -> dict[str, float]:
        candidates = None if s.candidates == "all" else lists["valid"]
        return valid_figures(
            model,
            store,
            data.labels,
            data.splits["valid"],
            candidates,
            machine.device,
            machine.precision,
        )

    return Finetuning(
        network,
        store,
        split.product,
        data.labels,
        split.labels,
        split.excluded,
        lists["train"],
        s,
        seed,
        validate,
    )


def _optimiser(s: Finetune) -> str:
    """For the metrics: which optimiser moves which weights."""
    if s.free_update == "dense":
        return "AdamW; SparseAdam for lexical vectors"
    return "AdamW; SparseAdam for eta, alpha and lexical vectors"


if __name__ == "__main__":
    runtime.run(main)
