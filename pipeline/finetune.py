"""Module IV: trains classifiers, A_C and the encoders on the shortlists (MUFIN Sec. 3.1).

One process:  python -m pipeline.finetune
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.finetune, or torchrun
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mufin import devices, process_group, processes, runtime
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import sentence
from mufin.nn.assembly import load_members, save_members
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.embedding import embed_vectors
from mufin.nn.encoded import encoders_held
from mufin.nn.mufin import Mufin
from mufin.params import Finetune, load_params
from mufin.ragged import Lists
from mufin.ranking.validation import valid_figures
from mufin.training.curves import CurveFile
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.table_updates import dense_pays, free_memory


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a member is trained on."""

    data: Curated
    store: DescriptorStore
    shortlists: dict[str, Lists]  # of train and valid, label ids


def main(home: runtime.Home = Path(".")) -> None:
    """Module IV: train classifiers and cross-attention on the shortlists."""
    params = load_params(home / "params.yaml")
    s = params.finetune
    process_group.start(devices.device())
    curated, precomputed = home / "data/curated", home / "data/precomputed"
    shortlists, start = home / "data/shortlists", home / "models/transfer"
    inputs = Inputs(
        read_curated(curated),
        DescriptorStore(precomputed, list(params.encoder.modalities), devices.device()),
        {name: _shortlist(shortlists / f"{name}.parquet") for name in ("train", "valid")},
    )
    curve = CurveFile(home / "metrics/finetune.csv", process_group.rank() == 0)
    scratch = []
    with runtime.measured("finetune", home) as report:
        members = load_members(start, Precomputed(precomputed))
        s = _with_free_update(s, members[0].network, len(inputs.data.labels))
        # All other settings have their effect through the inputs.
        settings = (params.seed, params.encoder.modalities, s)
        for number, member in enumerate(members):
            machine = _machine((settings, number), [curated, precomputed, shortlists, start])
            network = member.network.to(machine.device)
            network.recompute = devices.recompute()
            _train(network, inputs, s, params.seed + number, machine, curve)
            network.cpu()
            scratch.append(machine.scratch)
        report.items = curve.worked(len(inputs.data.train))
        report.facts = {
            "loss": curve.last_loss(),
            "optimiser": _optimiser(s),
            "alpha_mean": _mean_alpha(members[0].network),
        }
    if process_group.rank() == 0:
        save_members(members, home / "models/finetune", Precomputed(home / "data/precomputed"))
        for folder in scratch:
            runtime.discard(folder)
    process_group.barrier()


def _with_free_update(s: Finetune, network: Mufin, labels: int) -> Finetune:
    """The settings with `free_update` as it was chosen; prints the choice if it was left to us."""
    if s.free_update != "auto":
        return s
    assert network.classifiers is not None  # Module III gave them to it
    pairs = s.batch_size * (s.positives + s.negatives + s.random_negatives)
    drawn = labels if s.candidates == "all" else min(pairs, labels)
    numbers = sum(table.embedding_dim for table in network.classifiers.tables())
    half = s.free_precision == "bf16"  # updates all rows, within little memory
    dense = half or dense_pays(labels, numbers, drawn, free_memory(devices.device()))
    chosen = replace(s, free_update="dense" if dense else "rows")
    if process_group.rank() == 0:
        way = "AdamW on all rows" if dense else "SparseAdam on the rows of a step"
        said = f"eta and alpha of {labels:,} labels: {way} (finetune.free_update: auto)"
        print(sentence(f"finetune: {said}"), file=sys.stderr, flush=True)
    return chosen


def _shortlist(path: Path) -> Lists:
    return Lists.of_column(read_table(path, "shortlist")["labels"])


def _machine(settings: object, inputs: list[Path]) -> Machine:
    """The machine, with a scratch folder that only a run of the same settings and inputs shares."""
    mark = runtime.fingerprint(settings, inputs, Path(__file__))
    return Machine(
        devices.device(),
        devices.precision(),
        runtime.scratch("finetune", mark),
        runtime.checkpoint_seconds(),
    )


def _train(
    network: Mufin, inputs: Inputs, s: Finetune, seed: int, machine: Machine, curve: CurveFile
) -> None:
    with contextlib.ExitStack() as stack:
        if not s.train_encoders:
            held = encoders_held(network, inputs.store, machine.device, machine.precision)
            inputs = replace(inputs, store=stack.enter_context(held))
        job = _job(network, inputs, s, seed, machine)
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
            network,
            rates,
            s.weight_decay,
            with_cross_attention=True,
            dense_tables=dense,
            lexical_weight_decay=s.lexical_weight_decay,
            half_free=s.free_precision == "bf16",
        )
        job.eta = optimisers.eta
        warmup = s.warmup_iterations
        train(job, optimisers, seed, warmup, machine, curve.member(), schedule=s.schedule)
        job.finish()


def _job(network: Mufin, inputs: Inputs, s: Finetune, seed: int, machine: Machine) -> Finetuning:
    data, store, shortlists = inputs.data, inputs.store, inputs.shortlists

    def validate(model: Mufin) -> dict[str, float]:
        candidates = None if s.candidates == "all" else shortlists["valid"]
        split = data.splits["valid"]
        return valid_figures(
            model, store, data.labels, split, candidates, machine.device, machine.precision
        )

    def label_vectors(model: Mufin) -> np.ndarray:
        device, precision = machine.device, machine.precision
        return embed_vectors([model], store, data.labels, device, precision)[0]

    found = shortlists["train"]
    return Finetuning(
        network, store, data.train, data.labels, found, s, seed, validate, label_vectors
    )


def _optimiser(s: Finetune) -> str:
    """Which optimiser trains which weights, for the metrics."""
    if s.free_precision == "bf16":
        return "AdamW, of eta in bf16 with stochastic rounding; SparseAdam for lexical vectors"
    if s.free_update == "dense":
        return "AdamW; SparseAdam for lexical vectors"
    return "AdamW; SparseAdam for eta, alpha and lexical vectors"


def _mean_alpha(network: Mufin) -> float | None:
    """The mean mixing weight of the classifiers; None for those of PRIME, which have no alpha."""
    if not isinstance(network.classifiers, LabelClassifiers):
        return None
    return round(float(network.classifiers.mix.weight.detach().sigmoid().mean()), 4)


if __name__ == "__main__":
    runtime.run(main, processes.launch, process_group.leave)
