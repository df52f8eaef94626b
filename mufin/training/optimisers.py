"""AdamW for the network, SparseAdam (`row_adam`) for tables of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from mufin.errors import MufinError
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.mufin import Mufin
from mufin.training.fused_adamw import FusedAdamW
from mufin.training.row_adam import RowAdam


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates of the parameter groups."""

    encoder: float  # the parts of E_V and E_T that train
    new: float  # projections, A_S
    gates: float  # log weights of the modalities in the pooling
    lexical: float  # vectors of title words
    attention: float  # A_C, or its replacement in a variant; what `prime` and `directed` add
    free: float  # eta and alpha


class Optimisers:
    """AdamW for dense parameters, SparseAdam for lexical vectors and for rows of eta and alpha.

    AdamW is the optimiser of the paper. eta are the free vectors of the classifiers, alpha their
    mixing weights. By default a step only changes the rows of labels in its batch, so its cost does
    not depend on the number of all labels. SparseAdam has no weight decay, which these rows do not
    need: w depends on the direction of eta only. With `dense_tables`, AdamW updates all rows of eta
    and alpha in every step, exactly as in the paper, and rows outside the batch move by their
    moments. With `finetune.free_update: auto` the stage chooses (`table_updates.dense_pays`).
    Lexical vectors have a weight decay of their own. With `half_free`, eta is changed to bfloat16,
    and the backward pass of `fused_head.fused_softmax` updates it (`eta`).
    """

    def __init__(
        self,
        model: Mufin,
        rates: Rates,
        weight_decay: float,
        with_cross_attention: bool,
        dense_tables: bool = False,
        lexical_weight_decay: float = 0.0,
        half_free: bool = False,
    ):
        if not with_cross_attention:  # Module I does not use A_C
            model.cross_attention.requires_grad_(False)
        if model.classifiers is not None:
            for table in model.classifiers.tables():
                table.sparse = not dense_tables  # makes the gradient sparse
        self.model, self.rates = model, rates
        self.lexical_weight_decay = lexical_weight_decay
        self.eta = _in_half(model, weight_decay) if half_free else None
        groups = _groups(model)
        # Before and after the gathering of bags, see `distributed`
        self.before = groups["encoder"] + groups["new"] + groups["gates"]
        self.sparse_before = groups["lexical"]
        self.after = groups["attention"] + groups["free"]
        dense, sparse = ["encoder", "new", "gates", "attention"], ["lexical"]
        (dense if dense_tables else sparse).append("free")
        fused = next(model.parameters()).device.type == "cuda"
        self.all: list[optim.Optimizer] = []
        if of_dense := _settings(groups, dense):
            self.all.append(optim.AdamW(of_dense, weight_decay=weight_decay, fused=fused))
        if of_sparse := _settings(groups, sparse):
            self.all.append(RowAdam(of_sparse))
        if not self.all:
            raise MufinError(
                "attention.a_s is none, the encoders are frozen and the projection is maxpool, so "
                "nothing is left to train; set attention.a_s: feedforward or encoder.projection: "
                "linear"
            )

    def begin(self, factor: float, seed: int) -> None:
        """Comes before the backward pass of a step, which updates eta if it is in bfloat16."""
        if self.eta is not None:
            self.eta.begin(self.rates.free * factor, seed)

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak learning rates."""
        for optimiser in self.all:
            for group in optimiser.param_groups:
                group["lr"] = getattr(self.rates, group["group"]) * factor
                if group["group"] == "lexical" and self.lexical_weight_decay:
                    _shrink(group["params"], group["lr"] * self.lexical_weight_decay)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts as flat tensors, by name `<parameter>|<key>`."""
        names: dict[Tensor, str] = {p: n for n, p in self.model.named_parameters()}
        state = {
            f"{names[p]}|{key}": torch.as_tensor(value)
            for o in self.all
            for p, entries in o.state.items()
            for key, value in entries.items()
        }
        if self.eta is not None:
            state |= {f"{names[self.eta.table]}|{k}": t for k, t in self.eta.state().items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""
        parameters = dict(self.model.named_parameters())
        owner = {p: o for o in self.all for g in o.param_groups for p in g["params"]}
        for entry, value in state.items():
            name, _, key = entry.rpartition("|")
            p = parameters[name]
            if self.eta is not None and p is self.eta.table:
                self.eta.load(key, value)
            elif isinstance(owner[p], optim.SparseAdam) and key == "step":
                owner[p].state[p][key] = int(value)  # SparseAdam counts with a Python int
            else:
                # The step of AdamW moves too: the fused AdamW reads it on the GPU.
                owner[p].state[p][key] = value.to(p.device)


def _in_half(model: Mufin, weight_decay: float) -> FusedAdamW:
    """Changes eta to bfloat16; returns what updates it."""
    assert isinstance(model.classifiers, LabelClassifiers)
    table = model.classifiers.free.weight
    table.data = table.data.to(torch.bfloat16)
    return FusedAdamW(table, weight_decay)


@torch.no_grad()
def _shrink(parameters: list[nn.Parameter], share: float) -> None:
    """Decoupled weight decay, as AdamW has it, of the rows that a step changes."""
    for parameter in parameters:
        if parameter.grad is not None:
            rows = parameter.grad.coalesce().indices()[0]
            parameter.index_copy_(0, rows, parameter[rows] * (1 - min(share, 1.0)))


def _groups(model: Mufin) -> dict[str, list[nn.Parameter]]:
    """The parameters that train, by the field of `Rates` that applies."""
    groups: dict[str, list[nn.Parameter]] = {}
    for group in ("encoder", "new", "gates", "lexical", "attention", "free"):
        groups[group] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[_group(name)].append(p)
    return groups


def _group(name: str) -> str:
    if name.startswith(("cross_attention.", "classifiers.combiner.", "classifiers.map.")):
        return "attention"
    if name.startswith("classifiers."):
        return "free"
    if name.startswith("encoders.lexical."):
        return "lexical"
    if name == "pooling.gates":
        return "gates"
    return "encoder" if name.startswith("encoders.") else "new"


def _settings(groups: dict[str, list[nn.Parameter]], names: list[str]) -> list[dict]:
    """The groups that are not empty, as torch's optimisers take them."""
    return [{"params": groups[name], "group": name} for name in names if groups[name]]
