"""What the formulas of all stages read: settings, sizes, network and machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mufin.params import Params
from mufin.planning.machine import Machine
from mufin.planning.network import Network
from mufin.planning.sizes import Sizes
from mufin.planning.work import Held, Work

FLOAT, INT, LONG, HALF = 4, 4, 8, 2  # bytes of float32, int32, int64, float16
TABLES, TORCH = 0.2e9, 0.7e9  # bytes of a process with pyarrow and polars, and with torch
CUDA_HOST, CUDA_DEVICE = 1.2e9, 0.6e9  # bytes that CUDA takes before any tensor
# bf16 autocast keeps some tensors in float32: 0.57 of the bytes for DistilBERT, 0.62 for a ViT
BF16 = 0.6
STORED_PER_ID, STORED_PER_SCORE = 2.5, 4.0  # bytes in a Parquet file of rankings (zstd)
EMBEDDED_AT_ONCE = 512  # products per batch of `nn.embedding.embed`


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is planned."""

    params: Params
    sizes: Sizes
    network: Network
    machine: Machine

    @property
    def splits(self) -> int:
        """Datapoints of train, valid and test."""
        return self.sizes.train + self.sizes.valid + self.sizes.test

    @property
    def asked(self) -> int:
        """Datapoints that the stage evaluate scores: valid and test."""
        return self.sizes.valid + self.sizes.test

    def libraries(self) -> list[Held]:
        """What a stage that uses torch takes before any tensor."""
        gpu = self.machine.has_gpu
        return [
            Held("the process", TORCH + (CUDA_HOST if gpu else 0)),
            Held("CUDA", CUDA_DEVICE if gpu else 0, on_device=True),
        ]

    def process(self) -> list[Held]:
        """The libraries, and all weights of a member but eta and alpha."""
        weights = self.network.all_parameters * FLOAT
        names = "encoder.image.name, encoder.text.name"
        return [*self.libraries(), Held("weights", weights, names, True)]

    def embedding(self, what: str, products: float, pictures: float) -> Work:
        """The products encoded by all members, without gradients (`nn.embedding`)."""
        n = self.network
        return Work(
            what=what,
            flop=n.members * products * n.product(pictures).forward,
            read=products * n.input_bytes(pictures),
            shared=True,
        )

    def alone(self) -> Run:
        """The same run in one process."""
        return replace(self, machine=replace(self.machine, processes=1))

    def embedded(self, what: str, products: float, pictures: float, copies: float = 1) -> Held:
        """The bag rows X^1 and vectors of the products in float32 (`nn.embedding.Embedded`).

        `copies` counts members, and one more while the batches are joined.
        """
        n = self.network
        row = n.dim * FLOAT + 1
        return Held(what, copies * products * (n.rows(pictures) * row + n.dim * FLOAT + LONG))

    def ranking_file(self, rows: float, width: float) -> float:
        """Bytes of a Parquet file of ranked labels (`artifacts.tables.write_ranking`)."""
        return rows * min(width, self.sizes.labels) * (STORED_PER_ID + STORED_PER_SCORE)

    def store_on_gpu(self, size: float) -> bool:
        """Whether an array of inputs is copied to the GPU (`corpus.descriptors`, `_held`)."""
        return self.machine.has_gpu and size < (self.machine.gpu - CUDA_DEVICE) / 2
