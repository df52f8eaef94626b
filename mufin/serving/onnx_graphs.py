"""The networks that turn a product into vectors, as ONNX graphs, each compared with torch."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mufin.errors import MufinError, shown
from mufin.nn.given_vectors import GivenVectors
from mufin.nn.mufin import Mufin
from mufin.runtime import workers
from mufin.serving.onnx_parts import Bags, Descriptors, Pairs, Words

OPSET = 17  # of ONNX, 2022: the first with LayerNormalization
DIFFERENCE = 1e-4  # of an output from torch's at most, times the largest output where above 1
# The same where activations are rounded to float16: some lie so near to the middle of two numbers
# that the last bit of float32 decides which it is
ROUNDED = 1e-3
Inputs = tuple[Tensor, ...]
Shape = Sequence[str | int]  # a text is the name of a size that varies


@dataclass(frozen=True, slots=True)
class Graph:
    """A part of a network, what it reads and returns, and inputs to try it with."""

    network: nn.Module
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    tries: list[Inputs]  # the first is what is traced: no size of it is special
    setting: str  # that chooses this part

    def facts(self, difference: float) -> dict:
        """What `export.json` says of it."""
        kinds = {name: str(t.dtype).split(".")[1] for name, t in zip(self.inputs, self.tries[0])}
        return {
            "inputs": {n: {"shape": list(s), "type": kinds[n]} for n, s in self.inputs.items()},
            "outputs": {n: {"shape": list(s), "type": "float32"} for n, s in self.outputs.items()},
            "largest_difference_from_torch": difference,
        }


def write_graph(graph: Graph, path: Path) -> float:
    """Writes the graph and returns the largest difference of its outputs from those of torch.

    Raises MufinError if it cannot be written as ONNX or computes something else.
    """
    graph.network.eval()
    varying = {
        name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in (*graph.inputs.items(), *graph.outputs.items())
    }
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # of tracing; `_difference` shows what it got wrong
            torch.onnx.export(
                graph.network,
                graph.tries[0],
                str(path),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes=varying,
                opset_version=OPSET,
                dynamo=False,  # the other way needs onnxscript
            )
        difference, largest = _difference(graph, path)
    except OSError:
        raise
    except Exception as error:  # torch and onnxruntime raise a dozen different classes
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise MufinError(
            f"{graph.setting} makes {path.name}, which cannot be written as ONNX ({reason}); "
            "leave networks out with --kinds faiss"
        ) from None
    most = ROUNDED if getattr(graph.network, "rounds", False) else DIFFERENCE
    if not difference <= most * max(1.0, largest):  # also where it is NaN
        raise MufinError(
            f"{path.name} of {graph.setting} differs by {difference:.1e} from torch; leave "
            "networks out with --kinds faiss"
        )
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's C++ prints: of a network that ONNX cannot hold, all operators."""
    sys.stdout.flush()
    with open(os.devnull, "w") as nowhere:
        screen = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(screen, 1)
            os.close(screen)


@torch.no_grad()
def _difference(graph: Graph, path: Path) -> tuple[float, float]:
    """The largest difference from torch, and the largest output, over all tries."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = workers(), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    differences, sizes = [0.0], [0.0]
    for inputs in graph.tries:
        given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs)}
        wanted = graph.network(*inputs)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for ours, theirs in zip(wanted, session.run(list(graph.outputs), given), strict=True):
            differences.append(float(np.abs(ours.numpy() - theirs).max()))
            sizes.append(float(ours.abs().max()))
    return float(np.max(differences)), float(np.max(sizes))  # NaN if one of them is


# The parts

BATCHES = ((3, 5), (1, 1), (4, 2), (7, 9))  # products, and rows or tokens of each


def text_graph(network: Mufin, tokens: np.ndarray) -> Graph:
    """Titles to rows; `tokens` (k, T) are those of a few titles, without padding."""

    def sample(n: int, _: int) -> Inputs:
        rows = torch.from_numpy(np.resize(tokens, (n, tokens.shape[1])).astype(np.int64))
        width = tokens.shape[1] if n > 1 else max(1, tokens.shape[1] // 2)
        lengths = (torch.arange(n) * 2 + width) % width + 1  # of several lengths
        lengths[-1] = width
        there = torch.arange(width) < lengths[:, None]
        return rows[:, :width] * there, lengths

    return Graph(
        Descriptors(network, "text"),
        {"tokens": ("titles", "tokens"), "lengths": ("titles",)},
        {"rows": ("titles", network.dim)},
        _tries(sample),
        "encoder.text",
    )


def image_graph(network: Mufin, size: int) -> Graph:
    """Pixels of pictures to rows; where vectors of images were given, these to rows."""
    encoder = network.encoders["image"]
    if isinstance(encoder, GivenVectors):
        width = encoder.width
        inputs: dict[str, Shape] = {"vectors": ("pictures", width)}
        tries = _tries(lambda n, _: (torch.randn(n, width),))
    else:
        inputs = {"pixels": ("pictures", size, size, 3)}
        tries = _tries(lambda n, _: (torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8),))
    return Graph(
        Descriptors(network, "image"),
        inputs,
        {"rows": ("pictures", network.dim)},
        tries,
        "encoder.image",
    )


def words_graph(network: Mufin) -> Graph:
    """Numbers of known title words to rows."""
    words = Words(network)

    def sample(n: int, m: int) -> Inputs:
        lengths = torch.randint(1, m + 1, (n,))
        return torch.randint(0, words.encoder.embedding.num_embeddings, (n, m)), lengths

    return Graph(
        words,
        {"terms": ("titles", "terms"), "lengths": ("titles",)},
        {"rows": ("titles", network.dim)},
        _tries(sample),
        "encoder.lexical",
    )


def bag_graph(network: Mufin) -> Graph:
    """The rows of bags to vectors and to the rows after A_S."""

    def sample(n: int, m: int) -> Inputs:
        return _bags(n, m, network.dim)

    return Graph(
        Bags(network),
        {"rows": ("products", "rows", network.dim), "modality": ("products", "rows")},
        {"x": ("products", network.dim), "bag": ("products", "rows", network.dim)},
        _tries(sample),
        "attention.a_s",
    )


def attention_graph(network: Mufin) -> Graph:
    """Bags of products and of labels, in pairs, to the vectors that classifiers score."""

    def sample(n: int, m: int) -> Inputs:
        return *_bags(n, m, network.dim), *_bags(n, m + 2, network.dim)

    of_x = {"x": ("pairs", "rows", network.dim), "x_modality": ("pairs", "rows")}
    of_z = {"z": ("pairs", "label_rows", network.dim), "z_modality": ("pairs", "label_rows")}
    return Graph(
        Pairs(network),
        of_x | of_z,
        {"adapted": ("pairs", network.dim)},
        _tries(sample),
        "transfer.a_c",
    )


def _bags(n: int, m: int, dim: int) -> Inputs:
    """Random rows (n, m, D) and modalities, some of which are padding."""
    modality = torch.randint(-1, 3, (n, m))
    modality[:-1, 0] = 0  # the last bag may be empty
    return torch.randn(n, m, dim) * (modality >= 0).unsqueeze(-1), modality


def _tries(sample: Callable[[int, int], Inputs]) -> list[Inputs]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [sample(n, m) for n, m in BATCHES]
