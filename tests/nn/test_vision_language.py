"""CLIP's towers and VisualBERT against transformers' own models; their files; within MUFIN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    VisualBertConfig,
    VisualBertForPreTraining,
    VisualBertModel,
)

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, TEXT
from mufin.corpus.tokens import load_tokenizer, tokenise
from mufin.errors import MufinError
from mufin.nn.assembly import Member, load_members, new_member, save_members
from mufin.nn.embedding import embed
from mufin.nn.encoded import encoders_held
from mufin.nn.encoder_files import save_encoder
from mufin.nn.image_encoder import load_image_encoder
from mufin.nn.vision_language import (
    create_clip_image_encoder,
    create_clip_text_encoder,
    create_visualbert_encoder,
    load_encoder,
)
from mufin.params import Params, ParamsError, load_params
from mufin.serving.new_products import NewProducts
from mufin.serving.query import NewProduct
from tests.support.stages import (
    SIZE,
    inside,
    made,
    pictures_of,
    pixels_of,
    products,
    stage,
)

CPU, VOCABULARY, WIDTH = torch.device("cpu"), 60, 10
TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
VISION = TOWER | {"patch_size": 16, "projection_dim": 20}
READER = TOWER | {"projection_dim": 20}
BERT = TOWER | {"hidden_dropout_prob": 0.1}
MEAN, STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # of openai/CLIP
UNTITLED = [2, 3]
CLIP = {
    "encoder.modalities": ["text", "image"],
    "encoder.image.kind": "clip",
    "encoder.text.kind": "clip",
    "encoder.image.options": VISION,
    "encoder.text.options": READER,
}
VISUALBERT = {
    "encoder.modalities": ["text", "image"],
    "encoder.text.kind": "visualbert",
    "encoder.text.options": BERT,
    "encoder.image.name": "resnet10t",
    "encoder.image.options": {},
    "attention.a_s": "none",
}


def some_pixels(n: int = 5, size: int = 48) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def some_tokens(n: int = 8, most: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS] ... [SEP] of 2 to `most` tokens, 0-padded."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, most + 1, (n,), generator=g)
    lengths[0] = most
    tokens = torch.randint(5, VOCABULARY, (n, most), generator=g, dtype=torch.int32)
    tokens[:, 0] = 2
    tokens[torch.arange(n), lengths - 1] = 3
    return tokens * (torch.arange(most) < lengths[:, None]), lengths


def clip_model(eos: int = 3, size: int = 48) -> CLIPModel:
    """As on the hub: the configs of the towers do not have the width of the projections."""
    torch.manual_seed(4)
    config = CLIPConfig(
        text_config=TOWER
        | {"vocab_size": VOCABULARY, "eos_token_id": eos, "bos_token_id": 2, "pad_token_id": 0},
        vision_config=TOWER | {"image_size": size, "patch_size": 16},
        projection_dim=20,
    )
    return shaken(CLIPModel(config)).eval()


def shaken(model):
    """Biases and norms start at 0 and 1, where an error would not show."""
    g = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return model


def image_encoder(trainable=0, size: int = 48):
    torch.manual_seed(0)
    return create_clip_image_encoder("clip", "random", VISION, size, trainable)


def text_encoder(trainable=0, most: int = 12):
    torch.manual_seed(0)
    return create_clip_text_encoder("clip", "random", READER, trainable, most, VOCABULARY)


def visualbert(trainable="all", most: int = 12):
    torch.manual_seed(0)
    encoder = create_visualbert_encoder(
        "visualbert", "random", BERT, trainable, most, WIDTH, UNTITLED, VOCABULARY
    )
    shaken(encoder.model)
    return encoder


def run(encoder, *inputs):
    """In eval mode, from what precompute would store."""
    with torch.no_grad():
        return encoder.eval()(
            inputs[0] if encoder.kind == "inputs" else encoder.frozen(*inputs), *inputs[1:]
        )


# CLIP


@pytest.mark.parametrize("trainable", [0, "all"])
@pytest.mark.parametrize("size, own", [(48, 48), (64, 48), (48, 112), (50, 64)])
def test_clips_image_embeddings_are_those_of_transformers(trainable, size, own, tmp_path):
    whole = clip_model(size=own)
    whole.save_pretrained(tmp_path)
    encoder, pixels = (
        create_clip_image_encoder(str(tmp_path), "pretrained", {}, size, trainable),
        some_pixels(size=size),
    )
    x = ((pixels / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        theirs = whole.get_image_features(x, interpolate_pos_encoding=size != own).pooler_output
    assert theirs.shape == (5, 20) == (5, encoder.width) and theirs.std() > 0.1
    assert torch.allclose(run(encoder, pixels), theirs, atol=1e-5)


@pytest.mark.parametrize("trainable", [0, "all"])
@pytest.mark.parametrize(
    "eos", [3, 2]
)  # 2 stands in the config of older checkpoints: the highest id
def test_clips_text_embeddings_are_those_of_transformers(trainable, eos, tmp_path):
    whole, (tokens, lengths) = clip_model(eos), some_tokens()
    if eos == 2:
        tokens = tokens.clamp_max(VOCABULARY - 2)
        tokens[torch.arange(len(tokens)), lengths - 1] = VOCABULARY - 1
    whole.save_pretrained(tmp_path)
    encoder = create_clip_text_encoder(str(tmp_path), "pretrained", {}, trainable, 12)
    with torch.no_grad():
        theirs = whole.get_text_features(
            tokens.long(), torch.arange(12) < lengths[:, None]
        ).pooler_output
    assert theirs.shape == (8, 20) == (8, encoder.width) and theirs.std() > 0.1
    for given in (
        tokens,
        torch.where(torch.arange(12) < lengths[:, None], tokens, 7),
    ):  # pads may be anything
        assert torch.allclose(run(encoder, given, lengths), theirs, atol=1e-5)
    for i, length in enumerate(lengths):
        assert torch.allclose(
            run(encoder, tokens[i : i + 1, :length], lengths[i : i + 1])[0], theirs[i], atol=1e-5
        )


def test_clips_tokenizer_keeps_the_end_token(tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    end = tokenizer.eos_token_id
    tokens, lengths = tokenise(tokenizer, ["a mug", "a very long title of a mug", ""], 8)
    assert lengths.tolist() == [6, 8, 0] and [
        tokens[i, n - 1] for i, n in enumerate(lengths[:2])
    ] == [end, end]
    whole = clip_model(end)
    whole.save_pretrained(tmp_path)
    encoder = create_clip_text_encoder(str(tmp_path), "pretrained", {}, 0, 8)
    tokens, lengths = torch.from_numpy(tokens[:2]), torch.from_numpy(lengths[:2]).long()
    with torch.no_grad():
        theirs = whole.get_text_features(
            tokens.long(), torch.arange(8) < lengths[:, None]
        ).pooler_output
    assert torch.allclose(run(encoder, tokens, lengths), theirs, atol=1e-5)


def test_a_checkpoint_of_clip_fills_both_towers(tmp_path):
    whole = clip_model()
    CLIPModel(whole.config).save_pretrained(tmp_path / "other")  # other weights
    whole.save_pretrained(tmp_path / "this")
    path = str(tmp_path / "this/model.safetensors")
    for create, more, inputs in (
        (create_clip_image_encoder, (48, "all"), (some_pixels(),)),
        (create_clip_text_encoder, ("all", 12), some_tokens()),
    ):
        filled, same = (
            create(str(tmp_path / "other"), path, {}, *more),
            create(str(tmp_path / "this"), "pretrained", {}, *more),
        )
        assert torch.equal(run(filled, *inputs), run(same, *inputs))
    with pytest.raises(MufinError, match="encoder.image.weights is .* lacks"):
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
        create_clip_image_encoder(
            str(tmp_path / "other"), str(tmp_path / "x.safetensors"), {}, 48, 0
        )


# VisualBERT


def by_hand(model: VisualBertModel, tokens: list[int], pictures: torch.Tensor) -> torch.Tensor:
    """One product by itself, as transformers' documentation calls the model."""
    visual = (
        {
            "visual_embeds": pictures[None],
            "visual_attention_mask": torch.ones(1, len(pictures)),
            "visual_token_type_ids": torch.ones(1, len(pictures), dtype=torch.long),
        }
        if len(pictures)
        else {}
    )
    with torch.no_grad():
        hidden = model(
            input_ids=torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), **visual
        ).last_hidden_state
    return hidden[0].mean(0)


def test_visualberts_vectors_are_those_of_each_product_alone():
    encoder, (tokens, lengths) = visualbert().eval(), some_tokens()
    lengths[2] = lengths[5] = 0  # no title
    g = torch.Generator().manual_seed(1)
    counts, pictures = [3, 0, 2, 1, 5, 0, 0, 4], torch.randn(8, 5, WIDTH, generator=g)
    seen = torch.arange(5) < torch.tensor(counts)[:, None]
    seen[7] = torch.tensor([True, False, True, True, True])  # a gap
    with torch.no_grad():
        ours = encoder(tokens, lengths, pictures, seen)
    for i, length in enumerate(lengths):
        title = tokens[i, :length].tolist() or UNTITLED
        assert torch.allclose(
            ours[i], by_hand(encoder.model, title, pictures[i, seen[i]]), atol=1e-5
        ), i
    assert ours.shape == (8, encoder.width)
    assert torch.allclose(ours[5], by_hand(encoder.model, UNTITLED, pictures[0, :0]), atol=1e-5)


@pytest.mark.parametrize("most", [1, 12])
def test_titles_alone_need_no_pictures(most):
    encoder, (tokens, lengths) = visualbert().eval(), some_tokens()
    lengths = lengths if most > 1 else lengths * 0
    with torch.no_grad():
        alone = encoder(tokens[:, :most], lengths)
        assert torch.allclose(
            alone,
            encoder(tokens[:, :most], lengths, torch.zeros(8, 0, WIDTH), torch.zeros(8, 0).bool()),
        )
        unseen = encoder(
            tokens[:, :most], lengths, torch.randn(8, 4, WIDTH), torch.zeros(8, 4).bool()
        )
    assert torch.allclose(alone, unseen, atol=1e-5)
    assert torch.allclose(
        alone[3],
        by_hand(encoder.model, tokens[3, : lengths[3]].tolist() or UNTITLED, torch.zeros(0, WIDTH)),
        atol=1e-5,
    )


def test_a_frozen_visualbert_has_no_gradient_and_no_dropout():
    tokens, lengths = some_tokens()
    frozen, live = visualbert(0).train(), visualbert("all").train()
    assert (
        torch.equal(frozen(tokens, lengths), frozen(tokens, lengths))
        and not frozen(tokens, lengths).requires_grad
    )
    assert (
        not torch.equal(live(tokens, lengths), live(tokens, lengths))
        and live(tokens, lengths).requires_grad
    )


def test_a_pretrained_visualbert_is_read_without_its_heads(tmp_path):
    whole = VisualBertForPreTraining(
        VisualBertConfig(vocab_size=VOCABULARY, visual_embedding_dim=WIDTH, **TOWER)
    ).eval()
    whole.save_pretrained(tmp_path)
    encoder = create_visualbert_encoder(
        str(tmp_path), "pretrained", {}, "all", 12, WIDTH, UNTITLED
    ).eval()
    tokens, lengths = some_tokens(1)
    pictures = torch.randn(1, 2, WIDTH)
    ours = encoder(tokens, lengths, pictures, torch.ones(1, 2).bool())[0]
    assert torch.allclose(
        ours, by_hand(whole.visual_bert, tokens[0].tolist(), pictures[0]), atol=1e-5
    )
    with pytest.raises(
        MufinError,
        match="encoder.image gives 11 numbers per picture and the VisualBERT .* reads 10",
    ):
        create_visualbert_encoder(str(tmp_path), "pretrained", {}, "all", 12, 11, UNTITLED)


# Files


@pytest.mark.parametrize("trainable", [0, "all"])
@pytest.mark.parametrize(
    "make, inputs",
    [(image_encoder, (some_pixels(),)), (text_encoder, some_tokens()), (visualbert, some_tokens())],
    ids=["clip image", "clip text", "visualbert"],
)
def test_a_saved_encoder_loads_as_it_was(make, inputs, trainable, tmp_path):
    encoder = make(trainable)
    save_encoder(encoder, tmp_path / "a")
    save_encoder(load_encoder(tmp_path / "a"), tmp_path / "b")
    again = load_encoder(tmp_path / "b")
    assert type(again) is type(encoder) and (again.kind, again.width) == (
        encoder.kind,
        encoder.width,
    )
    assert torch.equal(run(again, *inputs), run(encoder, *inputs))
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in encoder.parameters()
    ]
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes()
        for n in ("encoder.json", "weights.safetensors")
    )
    one, same, two = (run(load_encoder(tmp_path / "a", s), *inputs) for s in (1, 1, 2))
    assert torch.equal(one, same) and torch.equal(one, two) == (trainable == 0)
    assert torch.equal(one, run(encoder, *inputs)) == (trainable == 0)


# What fails says so


def bert_folder(path: Path) -> str:
    BertModel(BertConfig(vocab_size=VOCABULARY, **TOWER)).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda p: create_clip_image_encoder(bert_folder(p), "pretrained", {}, 48, 0),
            "image.name is .* a bert, .* is clip",
        ),
        (
            lambda p: create_clip_text_encoder(bert_folder(p), "pretrained", {}, 0, 12),
            "text.name is .* a bert, .* is clip",
        ),
        (
            lambda p: create_visualbert_encoder(
                bert_folder(p), "pretrained", {}, 0, 12, WIDTH, UNTITLED
            ),
            "a bert, .* is visualbert",
        ),
        (
            lambda p: load_tokenizer(bert_folder(p)),
            "its tokenizer cannot be loaded .it has no vocabulary",
        ),
        (
            lambda p: create_clip_image_encoder(str(p / "none"), "pretrained", {}, 48, 0),
            "encoder.image.name is .* cannot be loaded",
        ),
        (
            lambda p: create_clip_image_encoder("clip", "random", VISION, 15, 0),
            "encoder.image.size is 15, less than .* 16 pixels",
        ),
        (
            lambda p: create_clip_image_encoder(
                "clip", "random", VISION | {"hidden_size": 33}, 48, 0
            ),
            "encoder.image.name",
        ),
        (
            lambda p: text_encoder(0, 78),
            "encoder.text.max_tokens is 78 and the model has positions for 77",
        ),
        (
            lambda p: visualbert(0, 513),
            "encoder.text.max_tokens is 513 and the model has positions for 512",
        ),
    ],
)
def test_an_impossible_setting_is_one_sentence(make, message, tmp_path):
    with pytest.raises(MufinError, match=message) as error:
        make(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"encoder.image.kind": "clip", "encoder.image.trainable_blocks": 1},
            "encoder.image.trainable_blocks is 1; .* 0 or all",
        ),
        (
            {"encoder.text.kind": "clip", "encoder.text.trainable_layers": 1},
            "encoder.text.trainable_layers is 1; .* 0 or all",
        ),
        (
            {
                "encoder.text.kind": "clip",
                "encoder.text.max_tokens": 78,
                "encoder.text.weights": "pretrained",
            },
            "77 tokens at most",
        ),
        (
            VISUALBERT | {"encoder.modalities": ["text"]},
            r"encoder.modalities is \['text'\]; .* must be \[text, image\]",
        ),
        (
            VISUALBERT | {"encoder.modalities": ["text", "image", "lexical"]},
            r"it must be \[text, image\]",
        ),
        (
            VISUALBERT | {"encoder.image.trainable_blocks": "all"},
            "encoder.image.trainable_blocks is 'all'; .* must be 0",
        ),
        (
            VISUALBERT | {"encoder.text.trainable_layers": 1},
            "encoder.text.trainable_layers is 1; .* 0 or all",
        ),
        ({"encoder.text.kind": "visual"}, "did you mean visualbert"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message, tmp_path):
    with inside(tmp_path, **changes), pytest.raises(ParamsError, match=message):
        load_params()


# In the network


def network_of(precomputed: Path, params: Params, seed: int) -> Member:
    """A network as the stage pretrain starts it."""
    return new_member(stage("pretrain")._architecture(params), Precomputed(precomputed), seed)


def store_of(precomputed: Path, params: Params) -> DescriptorStore:
    return DescriptorStore(precomputed, list(params.encoder.modalities))


@pytest.fixture(scope="module", params=[0, "all"])
def fused_member(request, catalog) -> tuple[Path, Member, DescriptorStore]:
    """A folder precomputed with VisualBERT (frozen, or trained later), its network and store."""
    changes = VISUALBERT | {
        "encoder.text.trainable_layers": request.param,
        "encoder.modality_dropout": 0.0,
    }
    precomputed = made(catalog, f"visualbert-{request.param}", **changes)
    with inside(catalog, **changes):
        params = load_params()
    member = network_of(precomputed, params, 3)
    member.network.eval()
    return precomputed, member, store_of(precomputed, params)


@pytest.fixture
def fused(fused_member):
    """The same: folder, network and store."""
    precomputed, member, store = fused_member
    return precomputed, member.network, store


def expected_row(
    precomputed: Path, model, store, product: int, title: bool = True, picture: bool = True
):
    """The product's one row from its title and stored features, by transformers' model called by
    hand; None where it has neither."""
    rows = store.image_lists[product] if picture else np.zeros(0, np.int64)
    length = int(store.lengths[product]) if title else 0
    if not len(rows) and not length:
        return None
    tokens = np.load(precomputed / "tokens.npy")[product, :length].tolist() or UNTITLED
    features = np.load(precomputed / "image_inputs-00000.npy")[rows]
    mean, std = (np.load(precomputed / f"image_{n}.npy") for n in ("mean", "std"))
    pictures = torch.from_numpy((features - mean) / np.maximum(std, 1e-6))
    encoder = model.encoders["text"]
    return model.projections["text"](by_hand(encoder.model, tokens, pictures)[None])[0]


@pytest.mark.parametrize("modalities", [None, {TEXT}, {IMAGE}])
def test_a_fused_bag_is_one_vector_by_hand(fused, modalities):
    precomputed, model, store = fused
    every = np.arange(0, 40)
    embedded = embed(model, store, every, CPU, torch.float32, 15, modalities)
    title, picture = modalities != {IMAGE}, modalities != {TEXT}
    for product in every:
        ours, theirs = (
            embedded.bags(np.array([product]), CPU),
            expected_row(precomputed, model, store, product, title, picture),
        )
        assert bool(ours.mask.any()) == (theirs is not None)
        if theirs is not None:
            assert ours.modality.tolist() == [[TEXT]]
            assert torch.allclose(ours.rows[0, 0], theirs, atol=2e-5)
    gone = {None: {9}, "text": {4, 9}, "image": {5, 9}}[
        None if not modalities else "text" if title else "image"
    ]
    assert gone <= set(np.flatnonzero(np.diff(embedded.offsets) == 0)) and (
        modalities or len(embedded.rows) >= 35
    )
    assert np.isfinite(embedded.vectors).all() and not embedded.vectors[9].any()


@pytest.mark.parametrize("asked", [[4], [5], [9], [], [9, 4]], ids=str)
def test_batches_may_lack_titles_pictures_or_products(fused, asked):
    precomputed, model, store = fused
    bag = model.bag(store.batch(np.array(asked, np.int64)))
    assert bag.rows.shape == (len(asked), 1, 16)
    for product, row, mask in zip(asked, bag.rows, bag.mask):
        assert (
            (expected_row(precomputed, model, store, product) is None)
            == (not mask.any())
            == (not row.any())
        )


def test_a_dropped_modality_is_not_fused(fused):
    precomputed, model, store = fused
    batch = store.batch(np.arange(40))
    model.modality_dropout = 1.0
    bag = model.train().bag(batch)  # dropout of A_S is off, that of VisualBERT may be on
    assert bag.mask[:, 0].sum() >= 35 and bag.rows.shape == (40, 1, 16)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    torch.manual_seed(0)
    bag, alone = model.bag(batch), set()
    for product in range(3, 40):
        one, other = (
            expected_row(precomputed, model, store, product, title, not title)
            for title in (True, False)
        )
        if one is not None and other is not None:
            matches = [torch.allclose(bag.rows[product, 0], row, atol=2e-5) for row in (one, other)]
            assert sum(matches) == 1
            alone.add(matches[0])
    model.modality_dropout = 0.0
    model.eval()
    assert alone == {True, False}


def test_held_fused_outputs_equal_a_running_visualbert(fused):
    _, model, store = fused
    encoder, every = model.encoders["text"], np.arange(store.num_products)
    live = embed(model, store, every, CPU, torch.float32, 37)
    with encoders_held(model, store, CPU, torch.float32) as held:
        assert not list(model.encoders["text"].parameters())
        fixed = embed(model, held, every, CPU, torch.float32, 50)
    assert model.encoders["text"] is encoder and store.modalities == ["text", "image"]
    assert np.array_equal(live.offsets, fixed.offsets) and np.array_equal(
        live.modality, fixed.modality
    )
    assert np.allclose(live.rows, fixed.rows, atol=2e-5) and np.allclose(
        live.vectors, fixed.vectors, atol=2e-5
    )
    assert np.array_equal(embed(model, store, every, CPU, torch.float32, 37).rows, live.rows)


def test_a_saved_network_with_visualbert_loads_as_it_was(fused_member, tmp_path):
    precomputed, member, store = fused_member
    save_members([member], tmp_path / "models", Precomputed(precomputed))
    (again,) = load_members(tmp_path / "models", Precomputed(precomputed))
    one, two = (embed(m.network, store, np.arange(30), CPU, torch.float32) for m in (member, again))
    assert again.architecture == member.architecture
    assert np.array_equal(one.rows, two.rows) and np.array_equal(one.vectors, two.vectors)
    assert not any(
        n.startswith("encoders.image") for n in member.network.state_dict()
    )  # E_V is frozen, and run by precompute


@pytest.mark.parametrize(
    "changes",
    [
        CLIP,
        CLIP | {"encoder.image.trainable_blocks": "all", "encoder.text.trainable_layers": 0},
        VISUALBERT,
    ],
    ids=["clip", "clip image trains", "visualbert"],
)
def test_new_products_have_the_vectors_of_catalog_products(catalog, changes):
    precomputed = made(catalog, "anew", **changes)
    table, content = products(catalog), pictures_of(catalog)
    asked = [3, 4, 5, 20, 21]
    titles = [table["title"][p].as_py() for p in asked]
    pictures = [[content[k] for k in table["images"][p].as_py()] for p in asked]
    with inside(catalog, **changes):
        params = load_params()
        model, store = network_of(precomputed, params, 0).network, store_of(precomputed, params)
        new = [NewProduct(*pair) for pair in zip(titles, map(tuple, pictures))]
        encoders = NewProducts(Precomputed(precomputed), params.encoder, CPU, torch.float32)
        anew = encoders.store(new)
        one, two = (
            embed(model, s, np.array(rows), CPU, torch.float32)
            for s, rows in ((store, asked), (anew, range(5)))
        )
    assert (
        np.array_equal(one.offsets, two.offsets)
        and np.linalg.norm(one.vectors, axis=1).min() > 0.99
    )
    assert np.allclose(one.vectors, two.vectors, atol=2e-5)


def test_clips_frozen_towers_computed_once_are_the_live_ones(catalog):
    precomputed = made(catalog, "clip", **CLIP | {"encoder.text.trainable_layers": 0})
    assert (
        json.loads((precomputed / "encoders/image/encoder.json").read_text())["family"]
        == "clip image"
    )
    pixels = torch.from_numpy(pixels_of(catalog, SIZE))
    tokens, lengths = (
        torch.from_numpy(np.load(precomputed / f"{n}.npy")) for n in ("tokens", "token_lengths")
    )
    image, text = (load_encoder(precomputed / "encoders" / n).eval() for n in ("image", "text"))
    with torch.no_grad():
        seen, read = image._embeddings(pixels), text._embeddings(tokens, lengths.long())
    assert (
        isinstance(image.model.config, CLIPVisionConfig)
        and image.kind == text.kind == "descriptors"
    )
    assert torch.allclose(
        torch.from_numpy(np.load(precomputed / "image_inputs-00000.npy")), seen, atol=1e-5
    )
    stored = torch.from_numpy(np.load(precomputed / "text_inputs.npy"))
    assert stored.shape == (len(tokens), 20) and torch.allclose(
        stored[lengths > 0], read[lengths > 0], atol=1e-5
    )


def test_clip_towers_that_train_are_held_as_they_run(catalog):
    changes = CLIP | {"encoder.image.trainable_blocks": "all"}
    precomputed = made(catalog, "clip-all", **changes)
    with inside(catalog, **changes):
        params = load_params()
    model, store = network_of(precomputed, params, 3).network, store_of(precomputed, params)
    every = np.arange(store.num_products)
    live = embed(model, store, every, CPU, torch.float32, 37)
    with encoders_held(model, store, CPU, torch.float32, 29) as held:
        fixed = embed(model, held, every, CPU, torch.float32, 50)
    assert np.array_equal(live.offsets, fixed.offsets) and np.allclose(
        live.rows, fixed.rows, atol=2e-5
    )


def test_picture_features_are_those_of_the_image_encoder(catalog, fused):
    precomputed = fused[0]
    encoder = load_image_encoder(precomputed / "encoders/image")
    pixels = torch.from_numpy(pixels_of(catalog, SIZE)[:4])
    stored = torch.from_numpy(np.load(precomputed / "image_inputs-00000.npy")[:4])
    assert torch.allclose(stored, encoder.frozen(pixels), atol=1e-4)
    assert fused[1].encoders["text"].model.config.visual_embedding_dim == encoder.width == 512
