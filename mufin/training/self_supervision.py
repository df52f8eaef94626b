"""A self-supervised start of E_V: it learns to tell products apart by their pictures alone.

Two pictures of a product, or two cuts of the only one, are to have similar vectors, and pictures of
different products different ones: the contrast of SimCLR (Chen et al., ICML 2020) with the pictures
of a product as its views. It needs no relations and no titles. It is not in the paper, whose E_V
has been trained on ImageNet; it is for catalogs whose encoder starts from random weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from mufin.nn.image_encoder import ImageEncoder
from mufin.ragged import Lists
from mufin.training.curves import Curve
from mufin.training.loop import generator, train
from mufin.training.machine import Machine

BATCH = 256  # products per step
TEMPERATURE = 0.15  # divides the cosines
HEAD = 64  # numbers of the vectors that are compared; E_V itself ends before the head
WEIGHT_DECAY = 0.01
# The largest changes of a picture. A flip or other colours would make another product of it.
ZOOM, TURN, SHIFT, LIGHT = 0.25, 0.3, 0.2, 0.15  # factor, radians, half widths, factor


@dataclass(frozen=True, slots=True)
class Views:
    """Two pictures of each product of a step, (n, S, S, 3) uint8."""

    first: Tensor
    second: Tensor

    def to(self, device: torch.device) -> Views:
        return Views(
            self.first.to(device, non_blocking=True), self.second.to(device, non_blocking=True)
        )


class Contrasted(nn.Module):
    """E_V with a head of two layers, which only this training uses: (n, HEAD), unit norm."""

    def __init__(self, encoder: ImageEncoder):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.head = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, HEAD))

    def forward(self, pixels: Tensor) -> Tensor:
        """Of pictures (n, 3, S, S), floats from 0 to 1."""
        return F.normalize(self.head(self.encoder.of_pictures(pixels)).float(), dim=-1)


class SelfSupervision:
    """The job of `loop.train` that gives E_V its start.

    `shards` are the (n, S, S, 3) uint8 pictures, in files of one after the other. `pictures` are
    the rows of the pictures of each product, none of those that are not to be learnt from.
    """

    name, lr = "the start of E_V", "encoder.image.self_supervised_lr"

    def __init__(
        self, model: Contrasted, shards: list[np.ndarray], pictures: Lists, epochs: int, seed: int
    ):
        self.model, self.shards, self.pictures, self.epochs = model, shards, pictures, epochs
        self.seed = seed
        self.starts = np.cumsum([0, *map(len, shards)])
        self.usable = np.flatnonzero(pictures.lengths() > 0)
        self.steps = max(len(self.usable) // BATCH, 1)

    def begin_epoch(self, epoch: int) -> None:
        pass

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The products of each step: every usable product once, in random order."""
        return np.array_split(generator(self.seed, epoch).permutation(self.usable), self.steps)

    def prepare(self, anchors: np.ndarray, rng: np.random.Generator) -> Views:
        """Draws two pictures of each product, different ones where it has more than one."""
        count = self.pictures.lengths()[anchors]
        first = rng.integers(count)
        second = (first + rng.integers(1, np.maximum(count, 2))) % count
        start = self.pictures.offsets[:-1][anchors]
        return Views(
            *(self._pixels(self.pictures.values[start + place]) for place in (first, second))
        )

    def _pixels(self, rows: np.ndarray) -> Tensor:
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        found = [self.shards[s][r - self.starts[s]] for s, r in zip(shard, rows)]
        return torch.from_numpy(np.stack(found))

    def loss(self, step: Views) -> Tensor:
        """Minus the mean log softmax of the second picture of the product, in both directions."""
        n = len(step.first)
        pictures = torch.cat([step.first, step.second]).permute(0, 3, 1, 2).float() / 255
        z = self.model(changed(pictures))
        with torch.autocast(z.device.type, enabled=False):
            scores = z[:n] @ z[n:].T / TEMPERATURE
        own = torch.arange(n, device=z.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def end_epoch(self, epoch: int) -> dict[str, float]:
        return {}

    def anchor_table(self) -> str:
        return "products"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {}, {}

    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None:
        pass


def changed(pictures: Tensor) -> Tensor:
    """`pictures` (n, 3, S, S) turned, moved, zoomed and lit at random, each in its own way."""
    n, device = len(pictures), pictures.device

    def random(width: float, *shape: int) -> Tensor:
        return (2 * torch.rand(n, *shape, device=device) - 1) * width

    zoom, angle = 1 + random(ZOOM), random(TURN)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turned = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    affine = torch.cat([turned, random(SHIFT, 2).unsqueeze(-1)], -1)  # (n, 2, 3)
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    seen = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    lit = seen * (1 + random(LIGHT, 1, 1, 1)) + random(LIGHT / 2, 1, 1, 1)
    return lit.contiguous(memory_format=torch.channels_last)  # in which convolutions are faster


class _AdamW:
    """AdamW for all of `model` that trains, in the form that `loop.train` updates."""

    def __init__(self, model: nn.Module, lr: float):
        self.model, self.lr = model, lr
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.before = parameters
        self.sparse_before: list[nn.Parameter] = []
        self.after: list[nn.Parameter] = []
        fused = parameters[0].device.type == "cuda"
        self.optimiser = optim.AdamW(parameters, weight_decay=WEIGHT_DECAY, fused=fused)

    def begin(self, factor: float, seed: int) -> None:
        pass

    def step(self, factor: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * factor
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = {p: n for n, p in self.model.named_parameters()}
        return {
            f"{names[p]}|{key}": value
            for p, entries in self.optimiser.state.items()
            for key, value in entries.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for entry, value in state.items():
            name, _, key = entry.rpartition("|")
            p = parameters[name]
            self.optimiser.state[p][key] = value.to(p.device)


def self_supervise(
    encoder: ImageEncoder,
    shards: list[np.ndarray],
    pictures: Lists,
    epochs: int,
    lr: float,
    seed: int,
    machine: Machine,
) -> Curve:
    """Trains all of `encoder`, frozen parts too, in place; returns the curve.

    `shards` and `pictures` are as in `SelfSupervision`, `lr` is the peak of a one-cycle schedule.
    The same arguments give the same weights. The encoder counts as pretrained afterwards: other
    seeds do not draw its weights again, and its batch norms keep their statistics.
    """
    torch.manual_seed(seed)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    encoder.requires_grad_(True)
    model = Contrasted(encoder).to(machine.device)
    job = SelfSupervision(model, shards, pictures, epochs, seed)
    curve = train(job, _AdamW(model, lr), seed, job.steps, machine)
    encoder.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    encoder.spec = replace(encoder.spec, random=False)
    return curve
