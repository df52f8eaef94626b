"""An invented catalog with the sizes of MM-AmazonTitles-300K: descriptors, relations, the network.

Only sizes matter for speed, so descriptors are random numbers from a seed. The library's own
classes write and read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.on_gpu.floors import ImageWork, TextWork
from mufin.artifacts.contents import NAME, seal
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Pooling
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.mufin import Mufin, Projection
from mufin.nn.text_encoder import create_text_encoder
from mufin.params import Params, params_of
from mufin.profiles import DEFAULT, FOLDER, completed
from mufin.ragged import Lists, offsets_of

MOST_TOKENS = 32
ROWS = 4000  # of the file of image activations, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large everything is."""

    products: int
    labels: int
    datapoints: int
    held_images: int  # activations that fit in GPU memory; products refer to them at random
    streamed_images: int  # activations that do not fit
    image: dict  # of `create_image_encoder`, beyond weights and trainable blocks
    text: dict  # of `create_text_encoder`, likewise
    vocabulary: int
    dim: int  # D
    batch: int  # B of Module I, labels
    finetune_batch: int  # B of Module IV, datapoints
    steps: int  # measured steps with inputs in GPU memory
    streamed_steps: int  # measured steps with inputs in host memory
    queries: int  # of exact retrieval
    predicted: int  # datapoints of prediction
    pictures: int  # whose pixels pass the frozen trunk


FULL = Sizes(
    products=847_317,
    labels=303_296,
    datapoints=586_781,
    held_images=100_000,
    streamed_images=2_000_000,
    image={"name": "vit_base_patch32_224", "options": {}, "size": 224},
    text={"name": "distilbert", "options": {}},
    vocabulary=30_522,
    dim=192,
    batch=1024,
    finetune_batch=200,
    steps=24,
    streamed_steps=16,
    queries=20_000,
    predicted=4096,
    pictures=8192,
)
TINY = Sizes(
    products=600,
    labels=200,
    datapoints=400,
    held_images=300,
    streamed_images=600,
    image={
        "name": "vit_tiny_patch16_224",
        "size": 32,
        "options": {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
    },
    text={
        "name": "distilbert",
        "options": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64},
    },
    vocabulary=200,
    dim=16,
    batch=16,
    finetune_batch=8,
    steps=3,
    streamed_steps=2,
    queries=64,
    predicted=16,
    pictures=16,
)

# Where bf16 is compared with fp32: layers of the same width, but smaller steps and a shallow frozen
# trunk, which does not run there.
FULL_COMPARED = replace(
    FULL,
    products=30_000,
    labels=10_000,
    datapoints=20_000,
    held_images=8_000,
    batch=128,
    finetune_batch=25,
    steps=5,
    image=FULL.image | {"options": {"depth": 2}},
)
TINY_COMPARED = replace(TINY, batch=8, finetune_batch=4, steps=2)

# Means of Table 1 of the paper, which does not have the spread of the lengths. Assumed: titles are
# log-normal, and about a sixth is cut at 32 tokens; images are Poisson, from 0 to 15.
MEAN_IMAGES, LABELS_PER_DATAPOINT = 4.91, 8.13
DATAPOINTS_PER_LABEL = 586_781 * LABELS_PER_DATAPOINT / 303_296
TITLE_MU, TITLE_SIGMA = 2.98, 0.5


def title_lengths(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) int32 tokens per title, 3 to 32, 20.4 on average."""
    lengths = np.round(rng.lognormal(TITLE_MU, TITLE_SIGMA, count))
    return np.clip(lengths, 3, MOST_TOKENS).astype(np.int32)


def image_counts(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) int64 images per product, 0 to 15, 4.91 on average."""
    return np.minimum(rng.poisson(MEAN_IMAGES, count), 15)


def profile(name: str) -> Params:
    """The settings of params/<name>.yaml, read by PyYAML: the GPU machine lacks ruamel.yaml.

    PyYAML comes with transformers. It reads YAML 1.1, in which 1e-05 is a text, so that a profile
    with such a number would raise a ParamsError here.
    """
    default, changes = (
        yaml.safe_load((FOLDER / f"{n}.yaml").read_text()) or {} for n in (DEFAULT, name)
    )
    return params_of(completed(default, changes), f"params/{name}.yaml")


def write_descriptors(sizes: Sizes, network: Mufin, folder: Path, images: int) -> None:
    """Writes `data/precomputed` of `sizes.products` products, unless an earlier part wrote it:
    tokens, and `images` activations of E_V's frozen trunk.

    The activations are one array of at most `ROWS` rows, which the manifest names as many times as
    needed: a GPU holds a copy per mention, while in host memory they share the pages of the file.
    """
    if (folder / NAME).exists():  # written last
        return
    folder.mkdir(exist_ok=True)
    out, rng, n = Precomputed(folder), np.random.default_rng(0), sizes.products
    counts = image_counts(n, rng)
    rows = min(images, ROWS)
    copies = images // rows
    seen = rng.integers(rows * copies, size=int(counts.sum()), dtype=np.int32)
    out.write_image_rows(Lists(offsets_of(counts), seen))
    work = image_work(network)
    block = torch.randn(rows, work.tokens, work.width, generator=torch.Generator().manual_seed(0))
    activations = out.image_input_writer()
    activations.add(block.half().numpy())
    lengths = title_lengths(n, rng)
    tokens = rng.integers(1, sizes.vocabulary, (n, MOST_TOKENS), dtype=np.int32)
    tokens[np.arange(MOST_TOKENS) >= lengths[:, None]] = 0
    out.write_tokens(tokens, lengths)
    out.write_manifest(
        n, ["text", "image"], {"shards": activations.close() * copies}, {"array": "tokens.npy"}
    )
    seal(folder)


def network(sizes: Sizes, dropout: bool = True) -> Mufin:
    """MUFIN of the paper with random weights, before Module I, on the CPU: pictures of 224 pixels.

    Without `dropout` for runs in two precisions: kernels do not promise to drop the same numbers.
    """
    torch.manual_seed(0)
    text, image = sizes.text, sizes.image
    options = text["options"] | ({} if dropout else {"dropout": 0.0, "attention_dropout": 0.0})
    encoders = {
        "text": create_text_encoder(text["name"], "random", options, "all", sizes.vocabulary),
        "image": create_image_encoder(image["name"], "random", image["options"], image["size"], 1),
    }
    projections = {
        name: Projection(encoder.width, sizes.dim, "maxpool", 0.0)
        for name, encoder in encoders.items()
    }
    rate = 0.1 if dropout else 0.0
    return Mufin(
        encoders,
        projections,
        sizes.dim,
        SelfAttention(sizes.dim, 1, rate),
        CrossAttention(sizes.dim, 1, rate),
        Pooling(),
    )


def with_classifiers(model: Mufin, sizes: Sizes) -> Mufin:
    """`model` as Module III leaves it: eta and alpha of all labels."""
    model.classifiers = LabelClassifiers(sizes.labels, sizes.dim)
    return model


def text_work(model: Mufin) -> TextWork:
    """The sizes of the network's E_T (a DistilBERT)."""
    config = model.encoders["text"].model.config
    return TextWork(config.n_layers, config.dim, config.hidden_dim)


def image_work(model: Mufin) -> ImageWork:
    """The sizes of the last block of the network's E_V (a ViT)."""
    vit = model.encoders["image"].model
    return ImageWork(vit.pos_embed.shape[1], vit.embed_dim, vit.blocks[-1].mlp.fc1.out_features)


def datapoint_products(sizes: Sizes) -> np.ndarray:
    """The products that are datapoints: the first ones."""
    return np.arange(sizes.datapoints)


def label_products(sizes: Sizes) -> np.ndarray:
    """The products that are labels: the last ones, so that some products are both."""
    return np.arange(sizes.products - sizes.labels, sizes.products)


def truth_by_label(sizes: Sizes, used: int) -> Lists:
    """The relevant labels of each datapoint. The first `used` labels have 15.7 datapoints each, the
    data set's average, and the others none, so that an epoch of Module I has `used` labels."""
    rng = np.random.default_rng([0, 1])
    each = min(round(DATAPOINTS_PER_LABEL), sizes.datapoints)
    keys = np.repeat(np.arange(used), each) * sizes.datapoints + rng.integers(
        sizes.datapoints, size=used * each
    )
    label, datapoint = np.divmod(np.unique(keys), sizes.datapoints)
    by_label = Lists(np.searchsorted(label, np.arange(used + 1)).astype(np.int64), datapoint)
    return by_label.transpose(sizes.datapoints)


def random_lists(rows: int, width: int, most: int, seed: int) -> Lists:
    """`rows` rows of about `width` distinct numbers below `most`, ascending."""
    rng = np.random.default_rng([seed, 2])
    keys = np.repeat(np.arange(rows), width) * most + rng.integers(most, size=rows * width)
    row, value = np.divmod(np.unique(keys), most)
    return Lists(np.searchsorted(row, np.arange(rows + 1)).astype(np.int64), value)


def no_pairs(rows: int) -> Lists:
    """The filter pairs of `rows` datapoints in a catalog without any."""
    return Lists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int64))
