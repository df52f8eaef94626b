"""Early fusion: pictures as tokens of E_T, against models of transformers called by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.errors import MufinError
from mufin.nn.assembly import Member, load_members, new_member, save_members
from mufin.nn.bert import BertTextEncoder
from mufin.nn.early_fusion import EarlyFusion, check_reads_pictures
from mufin.nn.embedding import embed
from mufin.nn.encoded import encoders_held
from mufin.nn.mufin import Mufin, Projection
from mufin.nn.stored import StoredDescriptors
from mufin.nn.text_encoder import TextEncoder, TextSpec, create_text_encoder
from mufin.params import Params, ParamsError, load_params
from mufin.serving.new_products import NewProducts
from mufin.serving.query import NewProduct
from tests.support.stages import (
    inside,
    made,
    pictures_of,
    products,
    stage,
)

CPU, VOCABULARY, PICTURE, MOST = torch.device("cpu"), 60, 10, 3
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTILBERT = {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2}
MODELS = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "mpnet": BERT,
    "roberta": BERT,
    "deberta-v2": BERT,
    "electra": BERT | {"embedding_size": 20},
    "t5": T5,
}


def encoder_of(name: str, trainable) -> TextEncoder:
    """The same weights for any part that trains, biases and norms included."""
    torch.manual_seed(0)
    model = AutoModel.from_config(
        AutoConfig.for_model(name, vocab_size=VOCABULARY, pad_token_id=0, **MODELS[name])
    )
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return TextEncoder(model, TextSpec(config={}, trainable=trainable, random=True))


def fusion_of(encoder: TextEncoder, dropout: float = 0.0) -> EarlyFusion:
    torch.manual_seed(2)
    projection = Projection(PICTURE, encoder.token_width, "linear", dropout)
    return EarlyFusion(projection, encoder.token_width, MOST, False)


def some_titles(n: int = 8, most: int = 12) -> tuple[Tensor, Tensor]:
    """Tokens (n, most), padded with 0, and lengths; the titles 2 and 5 are missing."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, most + 1, (n,), generator=g)
    lengths[0], lengths[2], lengths[5] = most, 0, 0
    tokens = torch.randint(5, VOCABULARY, (n, most), generator=g, dtype=torch.int32)
    return tokens * (torch.arange(most) < lengths[:, None]), lengths


def some_pictures(width: int, n: int = 8, most: int = 5) -> tuple[Tensor, Tensor]:
    """Picture tokens (n, most, width), and which exist: 0 to 5 per product, in 7 with a gap."""
    g = torch.Generator().manual_seed(3)
    counts = torch.tensor([3, 0, 2, 1, 5, 0, 0, 4])
    seen = torch.arange(most) < counts[:, None]
    seen[7] = torch.tensor([True, False, True, True, True])
    return torch.randn(n, most, width, generator=g), seen


def inputs_of(encoder: TextEncoder, tokens: Tensor, lengths: Tensor) -> Tensor:
    """What precompute stores of titles."""
    if encoder.kind == "inputs":
        return tokens
    return encoder.frozen(tokens, lengths.clamp_min(1)).detach()


def by_hand(whole, first: int, title: list[int], untitled: Tensor, pictures: Tensor) -> Tensor:
    """The vector of one product by itself.

    Pictures come to the token embeddings of the model `whole` or, with `first` > 0, to what enters
    its layer `first`, a BERT's.
    """
    tokens = torch.tensor([title], dtype=torch.int64)
    with torch.no_grad():
        if not first:
            words = whole.get_input_embeddings()(tokens) if title else untitled[None, None]
            joined = torch.cat([words, pictures[None]], 1)
            return whole(inputs_embeds=joined).last_hidden_state[0].mean(0)
        states = untitled[None, None]
        if title:
            states = whole(input_ids=tokens, output_hidden_states=True).hidden_states[first]
        states = torch.cat([states, pictures[None]], 1)
        for layer in whole.encoder.layer[first:]:
            states = layer(states)
            states = states if isinstance(states, Tensor) else states[0]
        return states[0].mean(0)


CASES = [*((name, "all") for name in MODELS), ("bert", 1), ("bert", 2)]


@pytest.mark.parametrize("name, trainable", CASES)
def test_fused_vectors_are_those_of_each_product_alone(name, trainable):
    encoder, whole = encoder_of(name, trainable).eval(), encoder_of(name, "all").model.eval()
    fusion, (tokens, lengths) = fusion_of(encoder).eval(), some_titles()
    pictures, seen = some_pictures(encoder.token_width)
    with torch.no_grad():
        ours = fusion(encoder, inputs_of(encoder, tokens, lengths), lengths, pictures, seen)
    assert ours.shape == (8, encoder.width)
    for i, length in enumerate(lengths):
        first = 0 if trainable == "all" else 3 - trainable
        own = pictures[i, :MOST][seen[i, :MOST]]
        theirs = by_hand(whole, first, tokens[i, :length].tolist(), fusion.untitled, own)
        assert torch.allclose(ours[i], theirs, atol=2e-5), i


@pytest.mark.parametrize("name, trainable", CASES)
def test_padding_and_neighbours_change_nothing(name, trainable):
    encoder = encoder_of(name, trainable).eval()
    fusion, (tokens, lengths) = fusion_of(encoder).eval(), some_titles()
    pictures, seen = some_pictures(encoder.token_width)
    inputs = inputs_of(encoder, tokens, lengths)
    with torch.no_grad():
        every = fusion(encoder, inputs, lengths, pictures, seen)
        for i in range(8):
            longest, most = max(int(lengths[i]), 1), int(5 * seen[i].any())
            alone = fusion(
                encoder,
                inputs[i : i + 1, :longest],
                lengths[i : i + 1],
                pictures[i : i + 1, :most],
                seen[i : i + 1, :most],
            )
            assert torch.allclose(alone[0], every[i], atol=2e-5)
        there = torch.arange(12) < lengths[:, None]
        other = inputs.clone()
        other[~there] = 7  # tokens or numbers of the padding
        noise = torch.where(seen.unsqueeze(-1), pictures, 9.0)
        same = fusion(encoder, other, lengths, noise, seen)
    assert torch.allclose(same, every, atol=2e-5)


def test_a_title_alone_has_the_vector_of_late_fusion():
    for trainable in (1, "all"):
        encoder = encoder_of("bert", trainable).eval()
        fusion, (tokens, lengths) = fusion_of(encoder).eval(), some_titles()
        inputs, titled = inputs_of(encoder, tokens, lengths), lengths > 0
        pictures, seen = some_pictures(encoder.token_width)
        with torch.no_grad():
            ours = fusion(encoder, inputs, lengths, pictures, seen & False)
            none = fusion(encoder, inputs, lengths, pictures[:, :0], seen[:, :0])
            late = encoder(inputs, lengths)
        assert torch.allclose(ours[titled], late[titled], atol=1e-5)
        assert torch.allclose(none, ours, atol=1e-5)


@pytest.mark.parametrize("name, trainable, ordered", [("bert", 1, False), ("bert", "all", True)])
def test_order_counts_where_the_model_numbers_the_pictures(name, trainable, ordered):
    encoder = encoder_of(name, trainable).eval()
    fusion, (tokens, lengths) = fusion_of(encoder).eval(), some_titles()
    pictures, seen = some_pictures(encoder.token_width)
    inputs = inputs_of(encoder, tokens, lengths)
    turned, fourth = pictures.clone(), pictures.clone()
    turned[:, :2] = pictures[:, [1, 0]]
    fourth[:, MOST:] += 1
    with torch.no_grad():
        one, two, three = (
            fusion(encoder, inputs, lengths, p, seen) for p in (pictures, turned, fourth)
        )
    assert torch.allclose(one[4], two[4], atol=1e-5) != ordered
    assert torch.equal(one, three)  # beyond `most`


@pytest.mark.parametrize("trainable", [1, "all"])
def test_gradients_reach_projection_token_and_layers(trainable):
    encoder = encoder_of("bert", trainable).train()
    fusion, (tokens, lengths) = fusion_of(encoder), some_titles()
    inputs = inputs_of(encoder, tokens, lengths)
    encoder.train()
    vectors = torch.randn(8, 5, PICTURE)
    out = fusion(encoder, inputs, lengths, fusion.projection(vectors), some_pictures(1)[1])
    out.square().sum().backward()
    names = {n for n, p in fusion.named_parameters() if p.grad is not None and p.grad.any()}
    assert names == {"untitled", "projection.linear.weight", "projection.linear.bias"}
    grads = [p.grad for p in encoder.parameters() if p.requires_grad and p.grad is not None]
    assert len(grads) > 10 and all(bool(g.isfinite().all()) for g in grads)
    if trainable == 1:
        assert all(p.grad is None for p in encoder.model.parameters())


def test_berts_fast_path_returns_the_same_bits():
    theirs = create_text_encoder("bert", "random", BERT, "all", VOCABULARY).eval()
    ours = BertTextEncoder(theirs.spec.config).eval()
    ours.load_state_dict(theirs.state_dict())
    fusion, (tokens, lengths) = fusion_of(theirs).eval(), some_titles()
    pictures, seen = some_pictures(theirs.token_width)
    with torch.inference_mode():
        one, two = (fusion(e, tokens, lengths, pictures, seen) for e in (ours, theirs))
    assert torch.equal(one, two)


@pytest.mark.parametrize("name, trainable", CASES)
def test_models_that_read_states_pass_the_check(name, trainable):
    encoder = encoder_of(name, trainable).train()
    check_reads_pictures(encoder, 15)
    assert encoder.training


def test_a_model_that_cannot_read_pictures_is_one_sentence():
    class Other(torch.nn.Module):
        kind = "inputs"

    with pytest.raises(MufinError, match="encoder.fusion is not late, .* or use another") as error:
        check_reads_pictures(Other(), 15)
    assert "\n" not in str(error.value)
    with pytest.raises(MufinError, match="cannot read 41 tokens and pictures .*max_tokens"):
        check_reads_pictures(encoder_of("bert", "all"), 41)
    check_reads_pictures(encoder_of("bert", "all"), 40)


# Settings


@pytest.mark.parametrize("fusion", ["early", "both"])
@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"encoder.text.trainable_layers": 0},
            "trainable_layers is 0; .* or set encoder.fusion to",
        ),
        ({"encoder.image.trainable_blocks": 1}, "trainable_blocks is 1; .* it must be 0, or"),
        ({"encoder.image.trainable_blocks": "all"}, "trainable_blocks is 'all'; .* must be 0, or"),
        ({"encoder.text.kind": "clip"}, "encoder.text.kind is 'clip'; .* it must be auto, or"),
        ({"encoder.fused_images": 0}, "encoder.fused_images is 0; it must be at least 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else "".join(value),
)
def test_settings_that_cannot_fuse_are_refused(fusion, changes, message, tmp_path):
    changes = {"encoder.fusion": fusion} | changes
    with inside(tmp_path, **changes), pytest.raises(ParamsError, match=message):
        load_params()


@pytest.mark.parametrize("modalities", [["text"], ["image"], ["lexical", "image"]], ids=str)
def test_without_titles_or_images_nothing_is_fused(modalities, tmp_path):
    changes = {"encoder.fusion": "early", "encoder.text.trainable_layers": 0}
    with inside(tmp_path, **changes | {"encoder.modalities": modalities}):
        assert stage("pretrain")._architecture(load_params()).fusion == "late"


# In the network


SETTINGS = {
    f"{fusion}, {trainable} layers": {
        "encoder.fusion": fusion,
        "encoder.text.trainable_layers": trainable,
        "encoder.modality_dropout": 0.0,
        "encoder.input_dropout": 0.0,
        "encoder.image_dropout": 0.0,
    }
    for fusion in ("early", "both")
    for trainable in (1, "all")
}


@pytest.fixture(scope="module", params=SETTINGS)
def member_and_store(request, catalog) -> tuple[Path, Params, Member, DescriptorStore]:
    """A folder precomputed with titles, pictures and terms, its network and store."""
    changes = SETTINGS[request.param]
    precomputed = made(catalog, f"precomputed {request.param.split()[1]}", **changes)
    with inside(catalog, **changes):
        params = load_params()
    member = new_member(stage("pretrain")._architecture(params), Precomputed(precomputed), 3)
    member.network.eval()
    return precomputed, params, member, DescriptorStore(precomputed, params.encoder.modalities)


def rows_by_hand(
    precomputed: Path, model: Mufin, store: DescriptorStore, product: int, kinds: set[int]
) -> list[tuple[int, Tensor]]:
    """(modality, row) of X^0 of a product, of which only the modalities `kinds` are known."""
    pictures = store.image_lists[product] if IMAGE in kinds else np.zeros(0, np.int64)
    length = int(store.lengths[product]) if TEXT in kinds else 0
    vectors = torch.from_numpy(np.load(precomputed / "image_inputs-00000.npy")[pictures])
    encoder, fusion, rows = model.encoders["text"], model.fusion, []
    with torch.no_grad():
        if length or len(pictures):
            inputs = store.text_rows(np.array([product]))[0][0, : max(length, 1)]
            states = encoder.token_states(inputs[None])
            states = states if length else fusion.untitled[None, None]
            tokens = fusion.projection(vectors[:MOST])
            joined = torch.cat([states, tokens[None]], 1)
            vector = encoder.read(joined, torch.tensor([joined.shape[1]]))
            rows.append((TEXT, model.projections["text"](vector)[0]))
        if LEXICAL in kinds and len(terms := store.lexical[product]):
            rows.append((LEXICAL, model.encoders["lexical"].embedding.weight[terms].mean(0)))
        if fusion.pictures_in_bags:
            rows += [(IMAGE, row) for row in model.projections["image"](vectors)]
    return rows


@pytest.mark.parametrize("kinds", [{0, 1, 2}, {TEXT, LEXICAL}, {IMAGE}], ids=str)
def test_a_bag_has_its_rows_by_hand(member_and_store, kinds):
    precomputed, _, member, store = member_and_store
    model = member.network
    batch = store.batch(np.arange(0, 40))
    batch.modality[~torch.isin(batch.modality, torch.tensor(sorted(kinds)))] = -1
    with torch.no_grad():
        bag = model.pre_embeddings(batch)
    for product in range(40):
        theirs = rows_by_hand(precomputed, model, store, product, kinds)
        there = bag.mask[product]
        assert bag.modality[product, there].tolist() == [kind for kind, _ in theirs]
        for ours, (_, row) in zip(bag.rows[product, there], theirs, strict=True):
            assert torch.allclose(ours, row, atol=2e-5)
    assert not bag.mask[9].any()
    assert ("image" in model.encoders) == model.fusion.pictures_in_bags


@pytest.mark.parametrize("asked", [[4], [5], [9], [], [9, 4]], ids=str)
def test_batches_may_lack_titles_pictures_or_products(member_and_store, asked):
    precomputed, _, member, store = member_and_store
    bag = member.network.bag(store.batch(np.array(asked, np.int64)))
    assert len(bag.rows) == len(asked) and bool(bag.rows.isfinite().all())
    for product, mask in zip(asked, bag.mask):
        rows = rows_by_hand(precomputed, member.network, store, product, {0, 1, 2})
        assert int(mask.sum()) == len(rows)


def without_dropout(model: Mufin) -> Mufin:
    """In training mode, where only modality dropout draws."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_a_dropped_modality_is_neither_fused_nor_a_row(member_and_store, monkeypatch):
    precomputed, _, member, store = member_and_store
    model = without_dropout(member.network)
    monkeypatch.setattr(model, "modality_dropout", 1.0)
    torch.manual_seed(0)
    with torch.no_grad():
        bag, lost = model.pre_embeddings(store.batch(np.arange(40))), set()
    for product in range(40):
        has = {kind for kind, _ in rows_by_hand(precomputed, model, store, product, {0, 1, 2})}
        if store.lengths[product] and len(store.image_lists[product]) and LEXICAL in has:
            matches = []
            for gone in (TEXT, IMAGE, LEXICAL):
                theirs = rows_by_hand(precomputed, model, store, product, {0, 1, 2} - {gone})
                there = bag.mask[product]
                same = bag.modality[product, there].tolist() == [kind for kind, _ in theirs]
                if same and all(
                    torch.allclose(ours, row, atol=2e-5)
                    for ours, (_, row) in zip(bag.rows[product, there], theirs, strict=True)
                ):
                    matches.append(gone)
            assert len(matches) == 1
            lost.add(matches[0])
    model.eval()
    assert lost == {TEXT, IMAGE, LEXICAL}


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_held_outputs_equal_a_running_encoder(member_and_store, dropout, monkeypatch):
    _, _, member, store = member_and_store
    model = without_dropout(member.network)
    monkeypatch.setattr(model, "modality_dropout", dropout)
    encoder, every = model.encoders["text"], np.arange(store.num_products)

    def embedded(store: DescriptorStore, train: bool) -> tuple[Tensor, Tensor]:
        model.train(train)
        torch.manual_seed(5)
        with torch.no_grad():
            bag = model.bag(store.batch(every))
        return bag.rows, bag.modality

    live = [embedded(store, train) for train in (False, True)]
    with encoders_held(model, store, CPU, torch.float32) as held:
        assert isinstance(model.encoders["text"], StoredDescriptors)
        trains = [n for n, p in model.named_parameters() if p.requires_grad]
        assert not any(n.startswith(("fusion", "encoders.text", "encoders.image")) for n in trains)
        fixed = [embedded(held, train) for train in (False, True)]
    assert model.encoders["text"] is encoder and model.fusion.untitled.requires_grad
    for (rows, kinds), (held_rows, held_kinds) in zip(live, fixed):
        assert torch.equal(kinds, held_kinds) and torch.allclose(rows, held_rows, atol=2e-5)
    model.eval()


@pytest.mark.parametrize("whole", [True, False])
def test_a_saved_network_loads_as_it_was(member_and_store, whole, tmp_path):
    precomputed, _, member, store = member_and_store
    save_members([member], tmp_path / "m", Precomputed(precomputed))
    [again] = load_members(tmp_path / "m", Precomputed(precomputed), whole)
    one, two = (embed(m.network, store, np.arange(30), CPU, torch.float32) for m in (member, again))
    assert again.architecture == member.architecture
    assert np.array_equal(one.rows, two.rows) and np.array_equal(one.vectors, two.vectors)


def test_new_products_have_the_vectors_of_catalog_products(catalog, member_and_store):
    precomputed, params, member, store = member_and_store
    table, content = products(catalog), pictures_of(catalog)
    asked = [3, 4, 5, 20, 21]
    titles = [table["title"][p].as_py() for p in asked]
    pictures = [[content[k] for k in table["images"][p].as_py()] for p in asked]
    with inside(catalog):
        new = [NewProduct(*pair) for pair in zip(titles, map(tuple, pictures))]
        encoders = NewProducts(Precomputed(precomputed), params.encoder, CPU, torch.float32)
        anew = encoders.store(new)
        one, two = (
            embed(member.network, s, np.array(rows), CPU, torch.float32)
            for s, rows in ((store, asked), (anew, range(5)))
        )
    assert np.array_equal(one.offsets, two.offsets)
    assert np.allclose(one.vectors, two.vectors, atol=2e-5)


def test_the_title_of_a_network_may_be_too_long_with_pictures(catalog):
    changes = SETTINGS["early, all layers"] | {
        "encoder.text.options": BERT | {"max_position_embeddings": 16}
    }
    precomputed = made(catalog, "short", **changes)
    with inside(catalog, **changes):
        architecture = stage("pretrain")._architecture(load_params())
    with pytest.raises(MufinError, match="cannot read 19 tokens and pictures as one sequence"):
        new_member(architecture, Precomputed(precomputed), 3)
