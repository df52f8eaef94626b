"""MUFIN-ConCat, MUFIN-no A_C, MUFIN-no A_S (App. F): how they differ from MUFIN, fast scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm, normalize, relu

from mufin.artifacts.curated import Split
from mufin.errors import MufinError
from mufin.nn import concat
from mufin.nn.assembly import Member, transferred
from mufin.nn.attention import AttentionBlock
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.concat import ConCat
from mufin.nn.embedding import embed
from mufin.nn.feed_forward import FeedForward
from mufin.nn.mufin import Mufin, Projection
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from mufin.ranking.scoring import classifier_scores, label_sides
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.optimisers import Optimisers
from mufin.training.pretraining import Pretraining
from tests.support.bags import (
    GivenStore,
    architecture,
    bare_mufin,
    given_mufin,
    random_bag,
    random_graph,
    shaken,
)
from tests.support.training import FINETUNE, PRETRAIN, RATES, WIDTH, L, N, machine

A_S, A_C = ("attention", "feedforward", "none"), ("attention", "concat", "none")
CPU = torch.device("cpu")
each_a_s, each_a_c = pytest.mark.parametrize("a_s", A_S), pytest.mark.parametrize("a_c", A_C)


def network(a_s: str = "attention", a_c: str = "attention", dropout: float = 0.0) -> Mufin:
    """A whole network with classifiers, over descriptors that are given."""
    torch.manual_seed(0)
    model = given_mufin(WIDTH, 8, dropout, a_s=a_s, a_c=a_c)
    model.classifiers = LabelClassifiers(L, 8)
    return model


def shapes(model: Mufin) -> dict[str, tuple]:
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def leaves(model: Mufin, *bags) -> list[torch.Tensor]:
    block = [p for n, p in model.named_parameters() if n.startswith("cross_attention.")]
    return [bag.rows.requires_grad_() for bag in bags] + block


def slow_scores(model: Mufin, x, z, w) -> torch.Tensor:
    """<w_l, x^{2,l}> pair after pair."""
    return torch.stack(
        [
            torch.stack(
                [model.adapted(x[i : i + 1], z[j : j + 1])[0] @ w[j] for j in range(len(w))]
            )
            for i in range(len(x.rows))
        ]
    )


@each_a_c
@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_fast_scores_equal_the_slow_loop_over_adapted_vectors(
    a_c, mx, mz, heads, gates, empty, seed
):
    model = shaken(bare_mufin(heads=heads, gates=gates, a_c=a_c), seed).double()
    x, z = random_bag(4, mx, 8, seed, empty=empty), random_bag(5, mz, 8, seed + 1, empty=empty)
    w = torch.randn(5, 8, dtype=torch.float64)
    side, slow, own = (
        model.label_side(z, w),
        slow_scores(model, x, z, w),
        torch.randint(0, 5, (4, 3)),
    )
    assert torch.allclose(model.scores(x, side), slow, atol=1e-9)
    assert torch.allclose(model.scores(x, side[own]), slow.gather(1, own), atol=1e-9)


@pytest.mark.parametrize("empty", [False, True])
@each_a_c
def test_fast_scores_have_the_gradients_of_the_slow_loop(a_c, empty):
    model = shaken(bare_mufin(a_c=a_c)).double()
    x, z = random_bag(3, 2, 8, 1, empty=empty), random_bag(4, 3, 8, 2, empty=empty)
    inputs, w = leaves(model, x, z), torch.randn(4, 8, dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad(scores.square().sum(), inputs, allow_unused=True)
        for scores in (model.scores(x, model.label_side(z, w)), slow_scores(model, x, z, w))
    )
    assert fast[0] is not None and (fast[1] is None) == (a_c == "none")
    assert all(
        (f is None) == (s is None) and (f is None or torch.allclose(f, s, atol=1e-8))
        for f, s in zip(fast, slow)
    )
    assert all(f is None or torch.isfinite(f).all() for f in fast)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("at_once", [1, 2 * 16 * 5])
def test_concat_in_chunks_equals_concat_at_once(at_once, own, monkeypatch):
    model = shaken(bare_mufin(dropout=0.3, a_c="concat")).double()
    x, z, w = random_bag(5, 2, 8, 1), random_bag(5, 3, 8, 2), torch.randn(5, 8, dtype=torch.float64)
    inputs, labels = leaves(model, x, z), torch.randint(0, 5, (5, 3)) if own else slice(None)

    def run():
        torch.manual_seed(3)
        scores = model.scores(x, model.label_side(z, w)[labels])
        return [scores, *torch.autograd.grad(scores.square().sum(), inputs)]

    whole = run()
    sizes, output = [], ConCat._output
    monkeypatch.setattr(concat, "AT_ONCE", at_once)
    monkeypatch.setattr(
        ConCat, "_output", lambda block, a, b: (sizes.append(len(a)), output(block, a, b))[1]
    )
    pieces = run()
    assert max(sizes) == max(1, at_once // (16 * (3 if own else 5))) and len(sizes) > 2
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(whole, pieces))


def test_without_a_c_scores_are_plain_inner_products():
    model = shaken(bare_mufin(gates=True, a_c="none")).double()
    x, z, w = random_bag(4, 3, 8, 1), random_bag(6, 2, 8, 2), torch.randn(6, 8, dtype=torch.float64)
    assert torch.equal(model.adapted(x, z[:4]), model.vector(x))
    assert torch.allclose(
        model.scores(x, model.label_side(z, w)), model.vector(x) @ w.T, atol=1e-12
    )


def test_concat_is_two_layers_that_start_as_identity():
    block, dim = ConCat(8), 8
    sizes = [
        (layer.in_features, layer.out_features)
        for layer in block.modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    assert sizes == [(2 * dim, 2 * dim), (2 * dim, dim)]
    assert (
        sum(p.numel() for p in block.parameters()) == (2 * dim + 1) * 2 * dim + (2 * dim + 1) * dim
    )
    x, z = torch.randn(5, dim), torch.randn(5, dim)
    assert torch.equal(block(x, z), x)
    shaken(block)
    by_hand = (
        relu(torch.cat([x, z], 1) @ block.hidden.weight.T + block.hidden.bias) @ block.out.weight.T
        + block.out.bias
    )
    assert torch.allclose(block(x, z), by_hand, atol=1e-5)


def test_concat_adapts_to_the_label_and_has_unit_norm():
    model = shaken(bare_mufin(a_c="concat")).double()
    x, z = random_bag(4, 3, 8, 1), random_bag(4, 2, 8, 2)
    here, there = model.adapted(x, z), model.adapted(x, random_bag(4, 2, 8, 3))
    assert torch.allclose(
        here.norm(dim=-1), torch.ones(4, dtype=torch.float64)
    ) and not torch.allclose(here, there, atol=0.01)


def test_feed_forward_equals_a_s_on_bags_of_one():
    layer, block = shaken(FeedForward(8)).double(), shaken(AttentionBlock(8)).double()
    layer.layer.weight.data = block.out.weight.data @ block.value.weight.data
    layer.layer.bias.data = block.out.weight.data @ block.value.bias.data + block.out.bias.data
    layer.norm.load_state_dict(block.norm.state_dict())
    bag = random_bag(5, 3, 8)
    rows = layer(bag.rows, bag.mask)
    for i, m in bag.mask.nonzero().tolist():
        one, there = bag.rows[i : i + 1, m : m + 1], torch.ones(1, 1, dtype=torch.bool)
        assert torch.allclose(rows[i, m], block.attend(one, one, there, there)[0, 0], atol=1e-10)
    assert (rows[~bag.mask] == 0).all()
    assert torch.allclose(
        FeedForward(8).double()(bag.rows, bag.mask)[bag.mask],
        layer_norm(2 * bag.rows, (8,))[bag.mask],
    )


def test_rows_depend_on_one_another_by_attention_alone():
    store = GivenStore(3, WIDTH)
    batch, other = store.batch(np.array([1])), store.batch(np.array([1]))
    other.images = other.images + 1.0  # the picture changes, the title does not
    seen = {
        a_s: not torch.equal(model.bag(batch).rows[0, 0], model.bag(other).rows[0, 0])
        for a_s in A_S
        if (model := network(a_s).eval())
    }
    assert seen == {"attention": True, "feedforward": False, "none": False}
    bare = network("none").eval()
    assert torch.equal(bare.bag(batch).rows, bare.pre_embeddings(batch).rows)


@pytest.mark.parametrize(
    "a_s, a_c, block",
    [
        ("feedforward", "attention", "self_attention."),
        ("none", "attention", "self_attention."),
        ("attention", "concat", "cross_attention."),
        ("attention", "none", "cross_attention."),
    ],
)
def test_a_variant_differs_in_one_block_alone(a_s, a_c, block):
    ours, theirs = network(), network(a_s, a_c)
    differ = shapes(ours).items() ^ shapes(theirs).items()
    assert differ and all(name.startswith(block) for name, _ in differ)
    assert any(name.startswith(block) for name in shapes(theirs)) == (
        a_s != "none" and a_c != "none"
    )


@each_a_s
@each_a_c
def test_bags_without_descriptors_score_zero_and_never_nan(a_s, a_c):
    model, store = shaken(network(a_s, a_c)), GivenStore(6, WIDTH)
    batch = store.batch(np.arange(6))
    batch.modality[:3] = -1  # datapoints 0 to 2 have nothing
    bags = model.bag(batch)
    z, w = bags[torch.tensor([0, 4, 5])], model.classifiers.free.weight[:3]
    scores, adapted = (
        model.scores(bags, model.label_side(z, w)),
        model.adapted(bags[:3], bags[3:]),
    )
    (scores.square().sum() + model.vector(bags).sum() + adapted.sum()).backward()
    assert (
        (scores[:3] == 0).all()
        and (adapted == 0).all()
        and torch.isfinite(scores).all()
        and scores[3:].abs().min() > 0
    )
    assert all(
        torch.isfinite(p.grad.to_dense()).all() for p in model.parameters() if p.grad is not None
    )


@pytest.mark.parametrize("budget", [1, 300, 2**25])
@pytest.mark.parametrize("width", [3, 20])
@each_a_c
def test_classifier_scores_are_the_mean_of_members(a_c, width, budget):
    members = [shaken(network(a_c=a_c), seed).eval() for seed in (1, 2)]
    store, candidates = GivenStore(N, WIDTH), np.random.default_rng(0).integers(0, L, (9, width))
    labels, x = (
        [embed(m, store, np.arange(n), CPU, torch.float32) for m in members] for n in (L, 9)
    )
    got = classifier_scores(label_sides(members, labels, CPU, chunk=7), x, candidates, CPU, budget)
    slow = torch.zeros(9, L)
    with torch.no_grad():
        for m in members:
            z = m.bag(store.batch(np.arange(L)))
            slow += (
                slow_scores(
                    m,
                    m.bag(store.batch(np.arange(9))),
                    z,
                    m.classifier(torch.arange(L), m.vector(z)),
                )
                / 2
            )
    assert np.allclose(got, slow.gather(1, torch.from_numpy(candidates)), atol=1e-5)


def job_of(model: Mufin, **changes) -> Finetuning:
    rng = np.random.default_rng(0)
    return Finetuning(
        model,
        GivenStore(N, WIDTH),
        Split(np.arange(N), random_graph(N, L), Lists.of_rows([[]] * N)),
        np.arange(L),
        Lists.of_rows([rng.permutation(L)[:12] for _ in range(N)]),
        SimpleNamespace(**FINETUNE | {"select": "last"} | changes),
        3,
        lambda m: {},
    )


@pytest.mark.parametrize("changes", [{}, {"loss": "softmax", "candidates": "all"}])
@pytest.mark.parametrize(
    "a_s, a_c",
    [
        ("attention", "concat"),
        ("attention", "none"),
        ("feedforward", "attention"),
        ("none", "attention"),
        ("none", "none"),
    ],
)
def test_module_four_trains_every_parameter_of_a_variant(a_s, a_c, changes, tmp_path):
    where = machine(tmp_path, 1e9)
    model = network(a_s, a_c)
    optimisers = Optimisers(model, RATES, 0.0, with_cross_attention=True)
    before = weights_of(model)
    curve = train(job_of(model, epochs=25, **changes), optimisers, 1, 10, where)
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    blocks = [n for n in before if n.startswith(("self_attention.", "cross_attention."))]
    same = {n for n in blocks if torch.equal(before[n], model.state_dict()[n].cpu())}
    assert not same, same
    assert {g["group"] for o in optimisers.all for g in o.param_groups} == {
        "encoder",
        "new",
        "free",
    } | ({"attention"} if a_c != "none" else set())


@each_a_s
def test_module_one_learns_with_every_a_s(a_s, tmp_path):
    where = machine(tmp_path, 1e9)
    model = network(a_s)
    model.classifiers = None
    job = Pretraining(
        model,
        GivenStore(N, WIDTH),
        Split(np.arange(N), random_graph(N, L), Lists.of_rows([[]] * N)),
        np.arange(L),
        SimpleNamespace(**PRETRAIN | {"epochs": 30}),
        3,
        where,
    )
    curve = train(job, Optimisers(model, RATES, 0.01, with_cross_attention=False), 1, 10, where)
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_a_network_without_trainable_weights_is_refused():
    model = bare_mufin(a_s="none")
    model.projections["text"] = Projection(16, 8, "maxpool", 0.0)
    with pytest.raises(MufinError, match="set attention.a_s: feedforward"):
        Optimisers(model, RATES, 0.0, with_cross_attention=False)


@each_a_c
def test_module_three_adds_classifiers_and_a_c(a_c):
    before = Member(architecture(heads=2), bare_mufin(heads=2))
    after = transferred(before, 5, a_c, 0.5, True)
    facts = before.architecture, after.architecture
    assert [(f.num_labels, f.a_c) for f in facts] == [(0, "attention"), (5, a_c)]
    assert len(after.network.classifiers.free.weight) == 5
    assert shapes(after.network) == shapes(bare_mufin(heads=2, a_c=a_c, num_labels=5))


def test_module_three_starts_every_a_c_alike():
    """All from the same free vectors; with ConCat x^{2,l} begins as x^1."""
    started = {}
    for a_c in A_C:
        torch.manual_seed(7)
        member = Member(architecture(heads=2), bare_mufin(heads=2))
        started[a_c] = transferred(member, 5, a_c, 0.5, True).network.eval()
    x, z = random_bag(4, 3, 8, 1, torch.float32), random_bag(4, 2, 8, 2, torch.float32)
    assert torch.equal(started["none"].adapted(x, z), started["none"].vector(x))
    assert torch.allclose(started["concat"].adapted(x, z), started["none"].vector(x), atol=1e-6)
    assert torch.equal(started["attention"].cross_attention.query.weight, torch.eye(8))
    assert len({m.classifiers.free.weight.data.numpy().tobytes() for m in started.values()}) == 1


def test_concat_normalises_with_the_gates_of_both_sides():
    model = shaken(bare_mufin(gates=True, a_c="concat")).double()
    x, z = random_bag(4, 3, 8, 1), random_bag(4, 2, 8, 2)
    vectors = [
        normalize(
            (
                bag.rows
                * (model.pooling.gates.exp()[bag.modality.clamp_min(0).long()] * bag.mask)[
                    ..., None
                ]
            ).sum(1),
            dim=1,
        )
        for bag in (x, z)
    ]
    assert torch.allclose(
        model.adapted(x, z), normalize(model.cross_attention(*vectors), dim=1), atol=1e-12
    )
