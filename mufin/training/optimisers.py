"""AdamW for the network, SparseAdam for tables of rows, one learning-rate curve for both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mufin.errors import MufinError
from mufin.nn.mufin import Mufin


def one_cycle(step: int, total: int, warmup: int) -> float:
    """The factor on the peak rate at `step` of `total`: cosine up from 1/25 over `warmup` steps, cosine down to 1e-4/25.

    What torch's OneCycleLR with its defaults gives (Sec. 4, Hyperparameters), as a function of the step alone, so that
    resuming needs no state. `warmup` is held to a tenth of the run, at least one step.
    """
    start, end = 1 / 25, 1e-4 / 25
    top = max(min(warmup, total // 10), 1)
    if step <= top:
        return start + (1 - start) * (1 - math.cos(math.pi * step / top)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (step - top) / max(total - 1 - top, 1))) / 2


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates, absolute."""

    encoder: float  # pretrained or random parts of E_V and E_T that train
    new: float  # projections, A_S
    gates: float  # log weights of the modalities: three numbers that must move far
    lexical: float
    attention: float  # A_C, or what stands in its place
    free: float  # eta and alpha


class Optimisers:
    """AdamW (the paper's; fused on a GPU) for dense parameters, SparseAdam for lexical vectors and, by rows, eta and alpha.

    By rows (`dense_tables` false) only the rows of a step's batch change, and a step costs what its batch holds.
    SparseAdam has no weight decay: w depends on the direction of eta alone. `dense_tables`: AdamW over all rows of eta and
    alpha in every step. That is the paper's optimiser to the letter: rows outside the batch go on by their moments.
    """

    def __init__(
        self,
        model: Mufin,
        rates: Rates,
        weight_decay: float,
        with_cross_attention: bool,
        dense_tables: bool = False,
    ):
        if not with_cross_attention:  # Module I does not use A_C
            model.cross_attention.requires_grad_(False)
        if model.classifiers is not None:
            for table in (model.classifiers.free, model.classifiers.mix):
                table.sparse = not dense_tables  # the form of its gradient
        groups = {"encoder": [], "new": [], "gates": [], "lexical": [], "attention": [], "free": []}
        for name, p in model.named_parameters():
            if p.requires_grad:
                groups[_group(name)].append(p)
        self.model, self.rates = model, rates
        self.before, self.sparse_before = (
            groups["encoder"] + groups["new"] + groups["gates"],
            groups["lexical"],
        )
        self.after = groups["attention"] + groups["free"]
        device = next(model.parameters()).device
        dense_groups, sparse_groups = ["encoder", "new", "gates", "attention"], ["lexical"]
        (dense_groups if dense_tables else sparse_groups).append("free")
        dense = [{"params": groups[g], "group": g} for g in dense_groups if groups[g]]
        sparse = [{"params": groups[g], "group": g} for g in sparse_groups if groups[g]]
        if not dense + sparse:
            raise MufinError(
                "attention.a_s is none, the encoders are frozen and the projection is maxpool, so nothing is left "
                "to train; set attention.a_s: feedforward or encoder.projection: linear"
            )
        self.all: list[torch.optim.Optimizer] = []
        if dense:
            self.all.append(
                torch.optim.AdamW(dense, weight_decay=weight_decay, fused=device.type == "cuda")
            )
        if sparse:
            self.all.append(torch.optim.SparseAdam(sparse))

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak rates."""
        for optimiser in self.all:
            for group in optimiser.param_groups:
                group["lr"] = getattr(self.rates, group["group"]) * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and step counts as flat tensors, by parameter name."""
        names = {p: n for n, p in self.model.named_parameters()}
        return {
            f"{names[p]}|{key}": torch.as_tensor(value)
            for o in self.all
            for p, entries in o.state.items()
            for key, value in entries.items()
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        owner = {p: o for o in self.all for g in o.param_groups for p in g["params"]}
        for name, value in state.items():
            p = parameters[name.rpartition("|")[0]]
            optimiser, key = owner[p], name.rpartition("|")[2]
            if isinstance(optimiser, torch.optim.SparseAdam) and key == "step":
                value = int(value)  # SparseAdam counts with a plain int
            else:
                value = value.to(p.device)  # the step too: fused AdamW reads it on the GPU
            optimiser.state[p][key] = value


def _group(name: str) -> str:
    if name.startswith("classifiers."):
        return "free"
    if name.startswith("cross_attention."):
        return "attention"
    if name.startswith("encoders.lexical."):
        return "lexical"
    if name == "pooling.gates":
        return "gates"
    return "encoder" if name.startswith("encoders.") else "new"
