"""What a GPU must give, tested on the CPU as well, so that the tests run where there is no GPU.

Full float32 is compared with float64 on the CPU: with a plain loop or formula or, for a whole
training run, with the same code in float64. A repeated run is compared with the first, a resumed
one with an unbroken one.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize, relu
from transformers import DistilBertConfig, DistilBertModel

from mufin.nn.attention import AttentionBlock
from mufin.nn.bags import Bag
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.embedding import Embedded, embed
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.mufin import Mufin, Projection
from mufin.nn.text_encoder import TextEncoder, TextSpec
from mufin.nn.weights import weights_of
from mufin.ragged import Lists, offsets_of
from mufin.ranking.scoring import classifier_scores, label_sides
from mufin.retrieval import exact as exact_module
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.training import losses
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers
from mufin.training.stochastic_rounding import low_half, random_bits, rounded
from tests.support.bags import GivenStore, bare_mufin, random_bag, shaken, tiny_mufin
from tests.support.training import (
    RATES,
    WIDTH,
    Killed,
    dense_finetuning,
    finetuning,
    killed_after,
    pretraining,
)

# cuBLAS repeats its sums in the same order only with this, and reads it when CUDA starts
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CPU, DIM = torch.device("cpu"), 8
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
)

# Tolerances. They are for full float32, which rounds to 6e-8 of a number: no TF32, which rounds to
# 5e-4. On a CPU nothing is off by more than a tenth of what is allowed, so that a GPU's other order
# of summation has room.
LOSS = 1e-5  # of the largest number: sums of some dozens of terms
NETWORK = 1e-4  # of the largest number: a dozen layers, each with sums of at most 100 terms
SIMILARITY = 2e-6  # inner products of unit vectors, 32 terms; with TF32 they are off by 2e-4
TRAINED = 1e-4  # 20 steps of AdamW, which divides a gradient and its rounding by its size
BF16 = 0.05  # of the loss: bf16 rounds to 4e-3, in every layer and every step
ZERO = 1e-12  # below it a number of float64 is the rounding of a 0


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.mark.parametrize("first", [0, 2**32 - 3])
def test_stochastic_rounding_gives_the_bytes_of_a_cpu(first, device):
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    found = [
        rounded(x.to(d), low_half(random_bits(first, 40, 7, 3, d))).cpu()
        for d in (device, torch.device("cpu"))
    ]
    assert torch.equal(*found)


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """No TF32, neither in matrix products nor in convolutions, which have a switch of their own."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads share sums of a dozen numbers, and wait for one another where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """An operation without a deterministic form raises."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def check_near(ours: list[Tensor], reference: list[Tensor], tolerance: float) -> None:
    """Every tensor is finite and off by `tolerance` times its largest number at most."""
    sizes = [float(b.detach().abs().max()) for b in reference]
    assert sizes[0] > 0.1
    for a, b, size in zip(ours, reference, sizes, strict=True):
        a, b = a.detach().cpu().double(), b.detach()
        assert a.shape == b.shape and torch.isfinite(a).all()
        # a true 0, as the gradient of key.bias, is a sum of numbers as large as the others'
        scale = size if size > ZERO else max(sizes)
        assert float((a - b).abs().max()) <= tolerance * scale


def with_gradients(out: Tensor, leaves) -> list[Tensor]:
    """`out`, and the gradients in `leaves` of its sum with random weights, each time the same."""
    g = torch.Generator().manual_seed(9)
    weights = torch.randn(out.shape, generator=g, dtype=torch.float64).to(out)
    gradients = torch.autograd.grad((out * weights).sum(), list(leaves))
    return [out, *(gradient.to_dense() for gradient in gradients)]  # the classifiers' are sparse


def trained(module: torch.nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def in_double(module: torch.nn.Module):
    return copy.deepcopy(module).to(CPU, torch.float64)


def bags(n: int, m: int, seed: int, empty: int) -> Bag:
    """n bags of at most m rows, bag `empty` without any; what padding holds must not matter."""
    bag = random_bag(n, m, DIM, seed, torch.float32)
    bag.modality[empty] = -1
    return Bag(torch.where(bag.mask.unsqueeze(-1), bag.rows, 7.0), bag.modality)


def singly(bag: Bag) -> list[Bag]:
    return [bag[i] for i in range(len(bag.rows))]


def moved(bag: Bag, device: torch.device, dtype: torch.dtype = torch.float32) -> Bag:
    """A copy whose rows require gradients."""
    rows = bag.rows.to(device, dtype, copy=True).requires_grad_()
    return Bag(rows, bag.modality.to(device))


# The losses


def plain_triplet(positive, negative, there, has, gamma):
    """The sum over all positives and negatives that exist."""
    return sum(
        relu(negative[a, j] - positive[a, i] + gamma)
        for a, i in there.nonzero().tolist()
        for j in has[a].nonzero()[:, 0]
    ) / len(positive)


def plain_softmax(scores, relevant, allowed):
    """Row by row, and its relevant columns one by one."""
    rows = []
    for row, mine, choice in zip(scores, relevant, allowed):
        terms = [row[choice].logsumexp(0) - row[j] for j in mine.nonzero()[:, 0]]
        rows += [sum(terms) / len(terms)] if terms else []
    return sum(rows) / len(rows)


def plain_symmetric(scores, relevant, allowed):
    return (
        plain_softmax(scores, relevant, allowed) + plain_softmax(scores.T, relevant.T, allowed.T)
    ) / 2


def plain_hinge(scores, relevant, negative, gamma):
    """Pair by pair."""
    pulled = sum(1 - scores[i, j] for i, j in relevant.nonzero().tolist())
    pushed = sum(relu(scores[i, j] - gamma) for i, j in negative.nonzero().tolist())
    return (pulled + pushed) / len(scores)


@pytest.mark.parametrize(
    "loss, plain",
    [
        (losses.triplet, plain_triplet),
        (losses.multi_positive_softmax, plain_softmax),
        (losses.symmetric_softmax, plain_symmetric),
        (losses.cosine_hinge, plain_hinge),
    ],
    ids=lambda f: f.__name__,
)
def test_losses_and_their_gradients_are_those_of_loops(loss, plain, device):
    g = torch.Generator().manual_seed(0)
    first, second = (torch.rand(9, 7, generator=g) * 2 - 1 for _ in range(2))
    one, two = torch.rand(9, 7, generator=g) > 0.6, torch.rand(9, 7, generator=g) > 0.4
    one[3] = two[3] = False  # a row with nothing relevant and nothing allowed
    if loss is losses.triplet:
        inputs, rest = [first, second], [one, two, 0.2]
    elif loss is losses.cosine_hinge:
        inputs, rest = [first], [one, two & ~one, 0.1]
    else:
        inputs, rest = [first * 5], [one, one | two]

    def results(f, device, dtype):
        given = [t.to(device, dtype, copy=True).requires_grad_() for t in inputs]
        out = f(*given, *(r.to(device) if isinstance(r, Tensor) else r for r in rest))
        return with_gradients(out, given)

    check_near(results(loss, device, torch.float32), results(plain, CPU, torch.float64), LOSS)


# Attention, bags and vectors


def plain_attention(block: AttentionBlock, x: Tensor, z: Tensor) -> Tensor:
    """Rows x (m_x, D) of one bag attend to rows z (m_z, D) of another: the formula, unpadded."""
    heads = [
        layer(rows).chunk(block.heads, -1)
        for layer, rows in ((block.query, x), (block.key, z), (block.value, z))
    ]
    attended = [(q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v for q, k, v in zip(*heads)]
    out = block.out(torch.cat(attended, -1)) + x
    return layer_norm(out, out.shape[-1:], block.norm.weight, block.norm.bias)


def plain_vector(model: Mufin, bag: Bag) -> Tensor:
    """(D,): the sum of one bag's rows, each times its gate if there are any, at norm 1."""
    rows = bag.rows[bag.mask]
    if model.pooling.gates is not None:
        rows = model.pooling.gates[bag.modality[bag.mask].long()].exp().unsqueeze(1) * rows
    return rows.sum(0) / rows.sum(0).norm() if len(rows) else rows.sum(0)


def plain_adapted(model: Mufin, x: Bag, z: Bag) -> Tensor:
    """x^{2,l} of one bag and one label's, (D,)."""
    rows = plain_attention(model.cross_attention, x.rows[x.mask], z.rows[z.mask])
    return plain_vector(model, Bag(rows, x.modality[x.mask]))


def gated_mufin(seed: int = 0, heads: int = 2) -> Mufin:
    """Without encoders: what lies above the bags."""
    torch.manual_seed(seed)
    return shaken(bare_mufin(dim=DIM, heads=heads, gates=True), seed).eval()


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["A_S", "A_C"])
def test_attention_and_its_gradients_are_the_formulas(kind, heads, device):
    block = shaken(AttentionBlock(DIM, heads))
    x, z = bags(6, 3, 1, empty=0), bags(6, 4, 2, empty=2)
    double, block = in_double(block), block.to(device)

    def inputs(*at):
        x1 = moved(x, *at)
        return x1, x1 if kind == "A_S" else moved(z, *at)

    bags_in = 1 if kind == "A_S" else 2  # bags that have a gradient
    x1, z1 = inputs(device)
    out = block.attend(x1.rows, z1.rows, x1.mask, z1.mask)
    ours = with_gradients(out, [x1.rows, z1.rows][:bags_in] + list(block.parameters()))
    x2, z2 = inputs(CPU, torch.float64)
    rows = [
        plain_attention(double, a.rows[a.mask], b.rows[b.mask])
        for a, b in zip(singly(x2), singly(z2))
    ]
    plain = torch.zeros_like(x2.rows).masked_scatter(x2.mask.unsqueeze(-1), torch.cat(rows))
    theirs = with_gradients(plain, [x2.rows, z2.rows][:bags_in] + list(double.parameters()))
    check_near(ours, theirs, NETWORK)


def plain_bags(model: Mufin, batch) -> list[Bag]:
    """X^1 of each product of a batch, (m, D): its title and, if it has one, its picture."""

    def rows(kind, inputs):
        return model.projections[kind].linear(model.encoders[kind].linear(inputs.double()))

    bags = []
    for i in range(batch.num_bags):
        pictures = batch.images[batch.image_bag == i]
        x = torch.cat([rows("text", batch.text[i : i + 1]), rows("image", pictures)])
        kinds = torch.tensor([0] + [1] * len(pictures))
        bags.append(Bag(plain_attention(model.self_attention, x, x), kinds))
    return bags


def test_bags_of_products_and_their_gradients_are_the_formulas(device):
    model, store, products = shaken(tiny_mufin(WIDTH)).eval(), GivenStore(7, WIDTH), np.arange(7)
    model.cross_attention.requires_grad_(False)  # has no part in it
    double, model = in_double(model), model.to(device)
    bag = model.bag(store.batch(products).to(device))
    ours = with_gradients(torch.cat([bag.rows[bag.mask], model.vector(bag)]), trained(model))
    plain = plain_bags(double, store.batch(products))
    assert bag.mask.sum(1).tolist() == [len(b.rows) for b in plain] == [1, 2, 2, 1, 2, 2, 1]
    both = [b.rows for b in plain] + [plain_vector(double, b)[None] for b in plain]
    check_near(ours, with_gradients(torch.cat(both), trained(double)), NETWORK)


def test_max_pooling_sends_each_gradient_to_the_first_largest(device, deterministic):
    """Deterministic also on a GPU, where torch's adaptive pooling has no such gradient."""
    g = torch.Generator().manual_seed(0)
    mean, std = torch.randn(12, generator=g), torch.rand(12, generator=g) + 0.5
    x = torch.randn(5, 12, generator=g)
    x[0], mean[:4], std[:4] = x[0, 0], 0.3, 1.5  # two groups of equal numbers
    projection = Projection(12, 6, "maxpool", 0.0, mean, std).to(device)
    given = x.to(device, copy=True).requires_grad_()
    ours = with_gradients(projection(given), [given])
    given = x.double().requires_grad_()
    scaled = (given - mean.double()) / std.double()
    groups = scaled.view(5, 6, 2).tolist()
    first = [[2 * j + group.index(max(group)) for j, group in enumerate(row)] for row in groups]
    theirs = torch.stack([row[at] for row, at in zip(scaled, first)])
    check_near(ours, with_gradients(theirs, [given]), NETWORK)


def test_vectors_of_bags_and_their_gradients_are_the_formulas(device):
    """x^1 and x^{2,l}, weighted by gates."""
    model = gated_mufin()
    x, z = bags(6, 3, 1, empty=0), bags(6, 4, 2, empty=2)
    double, model = in_double(model), model.to(device)

    def results(m, vectors, *at):
        x1, z1 = moved(x, *at), moved(z, *at)
        parts = [m.pooling.gates, *m.cross_attention.parameters()]
        return with_gradients(vectors(m, x1, z1), [x1.rows, z1.rows, *parts])

    def fast(m, x1, z1):
        return torch.cat([m.vector(x1), m.adapted(x1, z1)])

    def plain(m, x1, z1):
        x2, z2 = singly(x1), singly(z1)
        return torch.stack(
            [plain_vector(m, a) for a in x2] + [plain_adapted(m, a, b) for a, b in zip(x2, z2)]
        )

    ours = results(model, fast, device)
    assert (ours[0][[0, 6]] == 0).all()  # the empty bag
    check_near(ours, results(double, plain, CPU, torch.float64), NETWORK)


# The encoders, cut in two


@pytest.mark.parametrize("trainable", [1, "all"])
def test_an_image_encoder_in_two_parts_is_whole(trainable, device):
    """With one block the tail has one query, the class token; timm's own block has all tokens."""
    options = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    encoder = create_image_encoder("vit_tiny_patch16_224", "random", options, 48, trainable)
    with torch.no_grad():
        for p in encoder.model.parameters():  # biases and gains start at 0 and 1
            p += 0.1 * torch.randn(p.shape)
    pixels = torch.randint(0, 256, (5, 48, 48, 3), dtype=torch.uint8)
    whole, encoder = in_double(encoder.model).eval(), encoder.to(device)
    inputs = pixels.to(device) if trainable == "all" else encoder.frozen(pixels.to(device))
    ours = with_gradients(encoder.train()(inputs), trained(encoder))
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64)
        for numbers in (encoder.spec.mean, encoder.spec.std)
    )
    theirs = whole(((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2))
    check_near(ours, with_gradients(theirs, trained(whole)), NETWORK)


@pytest.mark.parametrize("trainable", [1, "all"])
def test_a_text_encoder_in_two_parts_is_whole(trainable, device):
    torch.manual_seed(0)
    model = shaken(
        DistilBertModel(
            DistilBertConfig(
                vocab_size=60,
                pad_token_id=0,
                dim=32,
                n_layers=2,
                n_heads=2,
                hidden_dim=48,
                dropout=0.0,
                attention_dropout=0.0,
            )
        ),
        std=0.2,
    )
    whole = in_double(model).eval()
    spec = TextSpec(config=model.config.to_dict(), trainable=trainable, random=False)
    encoder = TextEncoder(model, spec).to(device)
    lengths = torch.tensor([12, 1, 5, 8])
    tokens = torch.randint(1, 60, (4, 12), dtype=torch.int32)  # what pads hold must not matter
    given = tokens.to(device), lengths.to(device)
    inputs = given[0] if trainable == "all" else encoder.frozen(*given)
    ours = with_gradients(encoder.train()(inputs, given[1]), trained(encoder))
    alone = [
        whole(input_ids=title[None, :length].long()).last_hidden_state[0].mean(0)
        for title, length in zip(tokens, lengths)
    ]
    part = whole if trainable == "all" else whole.transformer.layer[-1]
    check_near(ours, with_gradients(torch.stack(alone), part.parameters()), NETWORK)


# Scores


def plain_scores(model: Mufin, x: list[Bag], z: list[Bag], w: Tensor) -> Tensor:
    """(B, U) <w_l, x^{2,l}>, one pair of bags after the other."""
    return torch.stack(
        [torch.stack([plain_adapted(model, a, b) @ v for b, v in zip(z, w)]) for a in x]
    )


@pytest.mark.parametrize("of", ["all labels", "own shortlists"])
def test_scores_and_their_gradients_are_those_of_loops(of, device):
    model, g = gated_mufin(), torch.Generator().manual_seed(3)
    x, z = bags(5, 3, 1, empty=0), bags(7, 4, 2, empty=2)
    w = normalize(torch.randn(7, DIM, generator=g), dim=-1)
    own = torch.stack([torch.randperm(7, generator=g)[:4] for _ in range(5)])
    double, model = in_double(model), model.to(device)

    def results(m, scores, *at):
        x1, z1, w1 = moved(x, *at), moved(z, *at), w.to(*at, copy=True).requires_grad_()
        parts = [m.pooling.gates, *m.cross_attention.parameters()]
        return with_gradients(scores(m, x1, z1, w1), [x1.rows, z1.rows, w1, *parts])

    def fast(m, x1, z1, w1):
        side = m.label_side(z1, w1)
        return m.scores(x1, side if of == "all labels" else side[own.to(device)])

    def plain(m, x1, z1, w1):
        every = plain_scores(m, singly(x1), singly(z1), w1)
        return every if of == "all labels" else every.gather(1, own)

    ours = results(model, fast, device, torch.float32)
    check_near(ours, results(double, plain, CPU, torch.float64), NETWORK)


def embedded(model: Mufin, bag: Bag) -> Embedded:
    mask = bag.mask.numpy()
    return Embedded(
        bag.rows.numpy()[mask],
        bag.modality.numpy()[mask],
        offsets_of(mask.sum(1)),
        model.vector(bag).detach().numpy(),
    )


def plain_classifiers(model: Mufin, labels, z: list[Bag]) -> Tensor:
    """w_l of `labels`, (U, D), one after the other."""
    out = []
    for label, bag in zip(labels, z):
        eta, a = model.classifiers.free.weight[label], model.classifiers.mix.weight[label].sigmoid()
        w = a * plain_vector(model, bag) + (1 - a) * eta / eta.norm()
        out.append(w / w.norm())
    return torch.stack(out)


@pytest.mark.parametrize("width", [3, 14], ids=["few candidates", "nearly all labels"])
@pytest.mark.parametrize("budget", [1, 2**25], ids=["one at a time", "at once"])
def test_classifier_scores_are_the_mean_of_members(width, budget, device):
    labels, n, rng = 16, 6, np.random.default_rng(0)
    members = [gated_mufin(seed) for seed in (0, 1)]
    x, z = (
        [bags(count, m, seed, empty=1) for seed in seeds]
        for count, m, seeds in ((n, 3, (1, 2)), (labels, 4, (3, 4)))
    )
    for member in members:
        member.classifiers = shaken(LabelClassifiers(labels, DIM), 5)
    candidates = np.stack([rng.permutation(labels)[:width] for _ in range(n)])
    candidates[rng.random(candidates.shape) < 0.3] = -1
    points, rows = ([embedded(*pair) for pair in zip(members, b)] for b in (x, z))
    doubles = [in_double(m) for m in members]
    ours = classifier_scores(
        label_sides(members, rows, device, chunk=5), points, candidates, device, budget
    )
    every = []
    for m, *pair in zip(doubles, x, z):
        a, b = (singly(moved(bag, CPU, torch.float64)) for bag in pair)
        every.append(plain_scores(m, a, b, plain_classifiers(m, range(labels), b)))
    mean = (sum(every) / 2).detach().numpy()
    there = candidates >= 0
    assert np.isfinite(ours).all() and ours.dtype == np.float32 and there.any() and not there.all()
    theirs = np.take_along_axis(mean, np.maximum(candidates, 0), 1)[there]
    check_near([torch.from_numpy(ours[there])], [torch.from_numpy(theirs)], NETWORK)


# Retrieval


def plain_search(rows: LabelRows, queries: np.ndarray, excluded: Lists) -> np.ndarray:
    """(n, L) float64: the best of each label's rows, -inf for no row and for excluded pairs."""
    best = np.full((len(queries), rows.num_labels), -np.inf)
    for vector, label in zip(rows.rows.astype(np.float64), rows.label):
        if label >= 0:
            best[:, label] = np.maximum(best[:, label], queries.astype(np.float64) @ vector)
    best[excluded.rows(), excluded.values] = -np.inf
    return best


@pytest.fixture(params=["at once", "in chunks"])
def chunks(request, monkeypatch) -> None:
    """How many queries are searched together; the second patch is for the GPU's own budget."""
    if request.param == "in chunks":
        for name in ("BUDGET", "GPU_BUDGET"):
            monkeypatch.setattr(exact_module, name, 20_000)


def test_exact_search_is_full_float32_also_with_tf32(device, chunks):
    torch.set_float32_matmul_precision("high")  # as the stages set it for a GPU
    rng, k = np.random.default_rng(0), 100
    points = rng.normal(size=(4000, 32))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    rows, queries = LabelRows(points, rng.integers(-1, 900, 4000), 950), points[:50] * 0.99
    excluded = Lists.of_rows([rng.permutation(900)[:20] for _ in queries])
    labels, values = ExactNeighbours(rows, device).search(queries, k, excluded)
    best = plain_search(rows, queries, excluded)
    top = np.sort(best, 1)[:, ::-1][:, :k]
    assert all(len(set(row)) == k for row in labels.tolist()) and labels.min() >= 0
    assert np.abs(values - top).max() < SIMILARITY  # nothing better was passed over
    assert np.abs(values - np.take_along_axis(best, labels, 1)).max() < SIMILARITY
    assert torch.get_float32_matmul_precision() == "high"


def test_exact_search_sorts_ties_by_label(device, chunks):
    """Whole numbers, which float32 multiplies and adds without rounding: every number is exact."""
    rng, k = np.random.default_rng(1), 15
    vectors, queries = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (400, 300))
    label = rng.integers(-1, 60, 400) // 2 * 2  # no odd label has rows, -2 is none
    rows = LabelRows(vectors, np.maximum(label, -1), 60)
    excluded = Lists.of_rows([rng.permutation(60)[: rng.integers(50)] for _ in queries])
    labels, values = ExactNeighbours(rows, device).search(queries, k, excluded)
    best = plain_search(rows, queries, excluded)
    order = np.lexsort((np.broadcast_to(np.arange(60), best.shape), -best))[:, :k]
    wanted = np.take_along_axis(best, order, 1)
    few = np.isinf(wanted).any(1)  # queries with fewer than k labels; ties at k in others
    assert (values == wanted).all() and few.any() and not few.all()
    assert (labels == np.where(np.isinf(wanted), -1, order)).all()


# Training


class Trained(NamedTuple):
    losses: np.ndarray  # one per epoch
    vectors: np.ndarray  # of all products
    weights: dict[str, Tensor]


def machine(device: torch.device, folder: Path, precision=torch.float32, seconds=1e9) -> Machine:
    """With `seconds` 0 a checkpoint is written as often as may be, else at the end alone."""
    folder.mkdir(exist_ok=True)
    return Machine(device, precision, folder, seconds)


def job_on(make, where: Machine, dropout: float = 0.0, double: bool = False, **changes):
    """A job of tests/support/training.py and its optimisers; the same weights on any device."""
    job, _ = make(where, dropout, **changes)
    job.model.to(where.device, torch.float64 if double else torch.float32)
    if double:
        job.store.text, job.store.images = job.store.text.double(), job.store.images.double()
    module_four = isinstance(job, Finetuning)
    if module_four:
        job.validate = lambda model: {"P@1": 0.5}  # the later of equals is the best
    return job, Optimisers(job.model, RATES, 0.01, module_four, make is dense_finetuning)


def run(job, optimisers: Optimisers, where: Machine) -> Trained:
    """To the end from the last checkpoint, or from the start where there is none."""
    curve = train(job, optimisers, 5, 10, where)
    if isinstance(job, Finetuning):
        job.finish()
    products = np.arange(len(job.store.text))
    vectors = embed(job.model, job.store, products, where.device, where.precision).vectors
    return Trained(np.array([row["loss"] for row in curve]), vectors, weights_of(job.model))


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Float64 wherever the code wants float32: by `.float()`, or by naming no dtype."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


# What is trained: module, and changes to the settings of tests/support/training.py
CASES = {
    "I": (pretraining, {}),
    "I softmax": (pretraining, {"loss": "softmax"}),
    "IV": (finetuning, {}),
    "IV softmax": (finetuning, {"loss": "softmax"}),
    "IV all labels": (finetuning, {"candidates": "all"}),
    "IV dense tables": (dense_finetuning, {}),
}
modules = pytest.mark.parametrize("module", ["I", "IV", "IV dense tables"])


def plain_pretraining(model: Mufin, step, s) -> Tensor:
    """The loss of a step of Module I, anchor by anchor."""
    vectors = torch.stack([plain_vector(model, bag) for bag in plain_bags(model, step.batch)])
    scores = vectors[step.anchor] @ vectors[step.other].T
    if s.loss == "softmax":
        return plain_symmetric(scores / s.temperature, step.relevant, step.allowed | step.relevant)
    total = 0.0
    for a, row in enumerate(scores):
        negative = row[step.allowed[a] & ~step.relevant[a]].sort(descending=True).values
        positive = row[step.positive[a][step.positive_mask[a]]]
        total = total + relu(negative[: s.negatives] - positive[:, None] + s.gamma).sum()
    return total / len(scores)


def plain_finetuning(model: Mufin, step, s) -> Tensor:
    """The loss of a step of Module IV, pair by pair."""
    bags = plain_bags(model, step.batch)
    x, z = ([bags[i] for i in at] for at in (step.datapoint_at, step.label_at))
    scores = plain_scores(model, x, z, plain_classifiers(model, step.labels, z))
    if s.loss == "softmax":
        return plain_softmax(scores / s.temperature, step.relevant, step.relevant | step.negative)
    return plain_hinge(scores, step.relevant, step.negative, s.gamma)


@pytest.mark.parametrize("case", CASES)
def test_a_steps_loss_and_its_gradients_are_the_formulas(case, device, tmp_path):
    make, changes = CASES[case]
    job, _ = job_on(make, machine(device, tmp_path), **changes)
    double = in_double(shaken(job.model))
    ours, theirs = (job.prepare(job.plan(0)[0], np.random.default_rng(0)) for _ in range(2))
    ours = with_gradients(job.loss(ours.to(device)), trained(job.model))
    plain = plain_pretraining if make is pretraining else plain_finetuning
    theirs = with_gradients(plain(double, theirs, job.settings), trained(double))
    check_near(ours, theirs, NETWORK)


@functools.cache
def exact(case: str) -> Trained:
    """An unbroken run in float64 on the CPU, by the same code."""
    make, changes = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        where = machine(CPU, Path(folder))
        job, optimisers = job_on(make, where, double=True, **changes)
        with float64():
            return run(job, optimisers, where)


def check_trained(ours: Trained, reference: Trained) -> None:
    assert np.abs(ours.losses / reference.losses - 1).max() < TRAINED
    assert np.abs(ours.vectors - reference.vectors).max() < TRAINED
    for name, weight in ours.weights.items():
        # the true gradient of key.bias is 0 (softmax is blind to it); AdamW blows up its rounding
        off = float((weight - reference.weights[name]).abs().max())
        assert off < TRAINED or name.endswith("key.bias"), name


def check_same_bytes(ours: Trained, theirs: Trained) -> None:
    assert ours.losses.min() > 0.1 and ours.losses.tolist() == theirs.losses.tolist()
    assert ours.vectors.tobytes() == theirs.vectors.tobytes()
    assert all(torch.equal(w, theirs.weights[n]) for n, w in ours.weights.items())


@pytest.mark.parametrize("case", CASES)
def test_training_gives_the_losses_vectors_and_weights_of_float64(case, device, tmp_path):
    make, changes = CASES[case]
    where = machine(device, tmp_path)
    check_trained(run(*job_on(make, where, **changes), where), exact(case))


@modules
def test_deterministic_training_twice_gives_the_same_bytes(module, device, deterministic, tmp_path):
    one, two = (machine(device, tmp_path / name) for name in ("one", "two"))
    check_same_bytes(*(run(*job_on(CASES[module][0], w, dropout=0.1), w) for w in (one, two)))


@modules
def test_bf16_training_gives_finite_losses_near_those_of_float64(module, device, tmp_path):
    where = machine(device, tmp_path, torch.bfloat16)
    ours = run(*job_on(CASES[module][0], where), where)
    assert np.isfinite(ours.losses).all() and np.isfinite(ours.vectors).all()
    off = np.abs(ours.losses / exact(module).losses - 1).max()
    assert TRAINED < off < BF16  # as near as full float32 it would not be bf16


# Checkpoints


@modules
def test_a_run_killed_twice_ends_as_an_unbroken_one(
    module, device, deterministic, monkeypatch, tmp_path
):
    """Killed in the first epoch past step 50, a GPU's first checkpoint, and in the second."""
    for name in ("N", "L"):
        monkeypatch.setattr(f"tests.support.training.{name}", 120)  # 60 steps an epoch

    def made(where):
        return job_on(CASES[module][0], where, dropout=0.1, batch_size=2, epochs=2)

    whole, broken = machine(device, tmp_path / "whole"), machine(device, tmp_path / "b", seconds=0)
    for steps in (55, 15):
        job, optimisers = made(broken)
        with pytest.raises(Killed):
            run(killed_after(job, steps), optimisers, broken)
        assert (broken.scratch / "checkpoint.safetensors").exists()
    check_same_bytes(run(*made(broken), broken), run(*made(whole), whole))


@modules
@pytest.mark.parametrize(
    "start, end",
    [
        ("cpu", "cpu"),
        pytest.param("cpu", "cuda", marks=needs_gpu),
        pytest.param("cuda", "cpu", marks=needs_gpu),
    ],
)
def test_a_checkpoint_of_one_device_resumes_on_another(module, start, end, tmp_path):
    """To the end that an unbroken run in float64 comes to."""
    before, after = (machine(torch.device(name), tmp_path, seconds=0) for name in (start, end))
    job, optimisers = job_on(CASES[module][0], before)
    with pytest.raises(Killed):
        run(killed_after(job, 7), optimisers, before)
    check_trained(run(*job_on(CASES[module][0], after), after), exact(module))


# The stages

STAGES = (
    "download",
    "curate",
    "precompute",
    "pretrain",
    "retrieve",
    "transfer",
    "finetune",
    "index",
    "evaluate",
)


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_stages_run_on_the_gpu_and_say_so(tmp_path, precision):
    pytest.importorskip("ruamel.yaml")  # a machine with a GPU may lack them
    pytest.importorskip("polars")
    from tests.support.projects import ROOT, run, small

    small(tmp_path)
    for stage in STAGES:
        done = run(
            ROOT,
            sys.executable,
            "-m",
            f"pipeline.{stage}",
            "--home",
            str(tmp_path),
            MUFIN_DEVICE="cuda",
            MUFIN_PRECISION=precision,
            MUFIN_SCRATCH=str(tmp_path / "scratch"),
        )
        assert done.returncode == 0, done.stderr[-2000:]
    costs = json.loads((tmp_path / "metrics/runtime/pretrain.json").read_text())
    assert costs["device"] == torch.cuda.get_device_name() and costs["peak_gpu_memory_mb"] > 0
    figures = json.loads((tmp_path / "metrics/evaluate.json").read_text())["test"]
    assert figures and all(0 <= value <= 100 for value in figures.values())
