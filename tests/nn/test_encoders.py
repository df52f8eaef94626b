"""E_V and E_T: frozen part and tail equal the whole encoder, also in training; files; errors."""

from __future__ import annotations

import copy
from dataclasses import replace

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel, BertConfig

from mufin.corpus.tokens import load_tokenizer
from mufin.errors import MufinError
from mufin.nn.encoder_files import save_encoder
from mufin.nn.image_encoder import (
    ImageEncoder,
    _class_token_block,
    create_image_encoder,
    load_image_encoder,
)
from mufin.nn.text_encoder import create_text_encoder, load_text_encoder

DEPTH, VOCABULARY, TOKENS = 3, 60, 12
VIT = {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": DEPTH, "num_heads": 2}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXTS = {
    "bert": BERT,
    "distilbert": {
        "dim": 32,
        "n_layers": DEPTH,
        "n_heads": 2,
        "hidden_dim": 48,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "modernbert": {
        "hidden_size": 32,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
    },
}
PARTS = [0, 1, 2, DEPTH, "all"]
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": DEPTH, "num_heads": 2}
BART = {
    "d_model": 32,
    "encoder_layers": DEPTH,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
}
GPT2 = {"n_embd": 32, "n_layer": DEPTH, "n_head": 2}
XLNET = {"d_model": 32, "n_layer": DEPTH, "n_head": 2, "d_inner": 48}
CLIP = {
    "text_config": BERT | {"vocab_size": VOCABULARY},
    "vision_config": BERT | {"image_size": 32, "patch_size": 16},
}
CUTTABLE = {
    "roberta": BERT,
    "mpnet": BERT,
    "electra": BERT | {"embedding_size": 32},
    "deberta-v2": BERT,
    "llama": BERT,
}
WHOLE = {
    "albert": BERT,
    "gpt2": GPT2,
    "xlnet": XLNET,
    "t5": T5,
    "bart": BART,
    "clip": CLIP,
    "clip_text_model": BERT,
    "electra": BERT,
}  # by default ELECTRA's embeddings are narrower than its layers
FAMILIES = {
    "vit_tiny_patch16_224": {"depth": 2},
    "deit_tiny_patch16_224": {"depth": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 2},
    "beit_base_patch16_224": {"depth": 1},
    "eva02_tiny_patch14_224": {"depth": 2},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "mixer_s32_224": {},
    "crossvit_tiny_240": {},
    "maxvit_pico_rw_256": {},
    "efficientvit_b0": {},
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "mobilenetv2_100": {},
    "lcnet_050": {},
    "vgg11": {},
    "convnext_atto": {},
    "efficientnet_b0": {},
}


def image_encoder(trainable, seed: int = 0, **options):
    torch.manual_seed(seed)
    encoder = create_image_encoder("vit_tiny_patch16_224", "random", VIT | options, 48, trainable)
    return shaken(encoder, seed)


def trained_whole(encoder: ImageEncoder) -> ImageEncoder:
    """An encoder of the same model that trains whole."""
    return ImageEncoder(encoder.model, encoder.width, replace(encoder.spec, trainable="all"))


def text_encoder(trainable, name: str = "bert", seed: int = 0, options: dict | None = None):
    """The same weights for the same seed and any part that trains."""
    torch.manual_seed(seed)
    return create_text_encoder(name, "random", options or TEXTS[name], trainable, VOCABULARY)


def shaken(encoder: nn.Module, seed: int) -> nn.Module:
    """Biases, norms and layer scales start at 0 and 1, where an error would not show."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in encoder.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return encoder


def some_pixels(n: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, 48, 48, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def some_tokens(n: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, TOKENS + 1, (n,), generator=g)
    lengths[0] = TOKENS
    tokens = torch.randint(5, VOCABULARY, (n, TOKENS), generator=g, dtype=torch.int32)
    return tokens * (torch.arange(TOKENS) < lengths[:, None]), lengths


def stored(encoder, *inputs):
    """What precompute would store: the inputs themselves where nothing is frozen."""
    return inputs[0] if encoder.kind == "inputs" else encoder.frozen(*inputs)


@pytest.mark.parametrize("trainable", PARTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_token": False, "global_pool": "avg"},
        {"init_values": 0.3},
        {"reg_tokens": 2, "qk_norm": True},
        {"pre_norm": True, "qkv_bias": False},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_frozen_then_forward_is_the_whole_image_encoder(trainable, options):
    encoder, whole = (
        image_encoder(trainable, **options).eval(),
        image_encoder("all", **options).eval(),
    )
    assert encoder.kind == {0: "descriptors", 1: "activations", 2: "activations"}.get(
        trainable, "inputs"
    )
    pixels = some_pixels()
    ours, theirs = encoder(stored(encoder, pixels)), whole(pixels)
    assert ours.shape == (10, 24) == (10, encoder.width) and theirs.std() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("trainable", PARTS)
@pytest.mark.parametrize("name", TEXTS)
def test_frozen_then_forward_is_the_whole_text_encoder(trainable, name):
    encoder, whole = text_encoder(trainable, name).eval(), text_encoder("all", name).eval()
    tokens, lengths = some_tokens()
    ours, theirs = encoder(stored(encoder, tokens, lengths), lengths), whole(tokens, lengths)
    assert ours.shape == (10, 32) == (10, encoder.width) and theirs.std() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_image_model_gives_what_timms_gives(name, size):
    encoder = create_image_encoder(name, "random", FAMILIES[name], size, 0)
    pixels = torch.randint(
        0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    mean, std = torch.tensor(encoder.spec.mean), torch.tensor(encoder.spec.std)
    with torch.no_grad():
        theirs = encoder.model.eval()(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
        whole = trained_whole(encoder).eval()(pixels)
    assert theirs.shape == (2, encoder.width)
    for ours in (encoder(encoder.frozen(pixels)), whole):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    "name, options, trainable",
    [
        *((n, o, t) for n, o in CUTTABLE.items() for t in (0, 1, "all")),
        *((n, o, t) for n, o in WHOLE.items() for t in (0, "all")),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_any_text_model_equals_its_parts_whatever_the_padding(name, options, trainable, tmp_path):
    encoder, whole = (
        text_encoder(trainable, name, 0, options).eval(),
        text_encoder("all", name, 0, options).eval(),
    )
    tokens, lengths = some_tokens(4)
    theirs = whole(tokens, lengths)
    assert theirs.shape == (4, encoder.width) and encoder.kind == {
        0: "descriptors",
        1: "activations",
    }.get(trainable, "inputs")
    garbage = torch.where(torch.arange(TOKENS) < lengths[:, None], tokens, 7)
    for given in (tokens, garbage):
        assert torch.allclose(encoder(stored(encoder, given, lengths), lengths), theirs, atol=1e-5)
    for i, length in enumerate(lengths):
        alone = encoder(
            stored(encoder, tokens[i : i + 1, :length], lengths[i : i + 1]), lengths[i : i + 1]
        )
        assert torch.allclose(alone[0], theirs[i], atol=1e-5)
    save_encoder(encoder, tmp_path)
    assert torch.equal(
        outputs(load_text_encoder(tmp_path), tokens, lengths), outputs(encoder, tokens, lengths)
    )


@pytest.mark.parametrize("name", WHOLE)
def test_a_text_model_that_cannot_be_cut_is_refused(
    name,
):
    with pytest.raises(
        MufinError, match="encoder.text.trainable_layers is 1, and .* set it to 0 or all"
    ) as error:
        text_encoder(1, name, 0, WHOLE[name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, options", [("t5", T5), ("bart", BART), ("clip", CLIP)])
def test_only_the_part_that_reads_titles_is_kept(name, options):
    names = [n for n, _ in text_encoder("all", name, 0, options).named_parameters()]
    assert names and not any("decoder" in n or "vision" in n for n in names)


def test_zero_is_the_pad_of_every_fresh_text_model():
    """RoBERTa's own is 1, which is [UNK] in the vocabularies that are learnt here."""
    words = text_encoder("all", "roberta", 0, BERT).model.embeddings.word_embeddings.weight
    assert not words[0].any() and words[1].any()


def test_half_precision_text_weights_are_read_as_float32(tmp_path):
    model = AutoModel.from_config(BertConfig(vocab_size=VOCABULARY, **BERT))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    encoder = create_text_encoder(str(tmp_path / "model"), "pretrained", {}, 1)
    save_encoder(encoder, tmp_path / "saved")
    for e in (encoder, load_text_encoder(tmp_path / "saved")):
        assert (
            {p.dtype for p in e.parameters()}
            == {torch.float32}
            == {outputs(e, *some_tokens()).dtype}
        )
    assert torch.equal(
        encoder.model.embeddings.word_embeddings.weight,
        model.embeddings.word_embeddings.weight.float(),
    )


def test_a_distilled_deit_keeps_both_its_tokens():
    """Its head reads two tokens, so that the last block must not compute the class token alone."""
    torch.manual_seed(0)
    encoder = create_image_encoder(
        "deit_tiny_distilled_patch16_224", "random", {"depth": 2}, 48, 1
    ).eval()
    whole = trained_whole(encoder).eval()
    pixels = some_pixels(3)
    assert torch.allclose(encoder(encoder.frozen(pixels)), whole(pixels), atol=1e-5)


def test_an_image_model_without_blocks_is_not_cut():
    torch.manual_seed(0)
    encoder = create_image_encoder("resnet10t", "random", {}, 32, 0)
    pixels = some_pixels(3)[:, :32, :32]
    assert (
        torch.equal(encoder(encoder.frozen(pixels)), encoder.frozen(pixels))
        and encoder.width == 512
    )
    with pytest.raises(
        MufinError, match="encoder.image.trainable_blocks is 1 .* set it to 0 or all"
    ):
        create_image_encoder("resnet10t", "random", {}, 32, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_values": 0.3},
        {"qk_norm": True},
        {"qkv_bias": False},
        {"drop_path_rate": 0.0, "proj_drop_rate": 0.0, "reg_tokens": 3},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_the_class_tokens_block_equals_the_full_one(options):
    block = image_encoder("all", **options).model.blocks[-1].train()
    x = torch.randn(5, 10, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(2))
    results = []
    for out in (block(x)[:, 0], _class_token_block(block, x)[:, 0]):
        results.append([out, *torch.autograd.grad((out * weight).sum(), [x, *block.parameters()])])
    assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(*results))


def test_only_what_trains_asks_for_gradients():
    encoder = image_encoder(1)
    names = {n.removeprefix("model.") for n, p in encoder.named_parameters() if p.requires_grad}
    assert names and all(n.startswith((f"blocks.{DEPTH - 1}.", "norm.")) for n in names)
    assert not any(
        p.requires_grad for e in (image_encoder(0), text_encoder(0)) for p in e.parameters()
    )
    encoder = text_encoder(2)
    assert {n.split(".")[0] for n, p in encoder.named_parameters() if p.requires_grad} == {"tail"}
    assert all(
        p.requires_grad for e in (image_encoder("all"), text_encoder("all")) for p in e.parameters()
    )


# Training from what is stored


def trained(parameters, output, steps: int = 8) -> None:
    """A few steps of SGD towards random targets (Adam would magnify rounding of zero gradients)."""
    parameters, g = list(parameters), torch.Generator().manual_seed(3)
    target, optimiser = None, torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for _ in range(steps):
        out = output()
        target = torch.randn(out.shape, generator=g) if target is None else target
        optimiser.zero_grad()
        (out - target).square().mean().backward()
        optimiser.step()


def gap(ours: dict, theirs: dict, start: dict) -> float:
    """The greatest difference of two trainings, relative to how far they moved the weights."""
    way = max(float((theirs[n] - start[n]).abs().max()) for n in theirs)
    assert way > 0.01 and ours.keys() == theirs.keys()
    return max(float((ours[n] - theirs[n]).abs().max()) for n in theirs) / way


@pytest.mark.parametrize(
    "half, tolerance", [(False, 1e-4), (True, 1e-2)], ids=["float32", "float16 as stored"]
)
@pytest.mark.parametrize("trainable", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"class_token": False, "global_pool": "avg"}], ids=["class token", "mean"]
)
def test_image_weights_train_alike_from_activations_and_pixels(trainable, half, tolerance, options):
    encoder, whole, pixels = (
        image_encoder(trainable, **options),
        image_encoder("all", **options),
        some_pixels(),
    )
    activations = encoder.frozen(pixels)
    encoder.train(), whole.train()
    names = [n for n, p in encoder.named_parameters() if p.requires_grad]
    for n, p in whole.named_parameters():
        p.requires_grad_(n in names)
    start = copy.deepcopy(whole.state_dict())
    trained(
        (p for p in encoder.parameters() if p.requires_grad),
        lambda: encoder(activations.half() if half else activations),
    )
    trained((p for p in whole.parameters() if p.requires_grad), lambda: whole(pixels))
    assert gap(encoder.state_dict(), whole.state_dict(), start) < tolerance


@pytest.mark.parametrize(
    "half, tolerance", [(False, 1e-4), (True, 1e-2)], ids=["float32", "float16 as stored"]
)
@pytest.mark.parametrize("trainable", [1, 2])
def test_text_weights_train_alike_from_activations_and_tokens(trainable, half, tolerance):
    encoder, whole, (tokens, lengths) = text_encoder(trainable), text_encoder("all"), some_tokens()
    activations = encoder.frozen(tokens, lengths)
    encoder.train(), whole.train()
    last = whole.model.encoder.layer[DEPTH - trainable :]
    whole.model.requires_grad_(False)
    last.requires_grad_(True)
    start = copy.deepcopy(last.state_dict())
    trained(
        encoder.tail.encoder.layer.parameters(),
        lambda: encoder(activations.half() if half else activations, lengths),
    )
    trained(last.parameters(), lambda: whole(tokens, lengths))
    assert gap(encoder.tail.encoder.layer.state_dict(), last.state_dict(), start) < tolerance


def test_training_the_tail_does_not_change_the_trunk():
    encoder, (tokens, lengths) = text_encoder(1), some_tokens()
    before = encoder.frozen(tokens, lengths)
    trained((p for p in encoder.parameters() if p.requires_grad), lambda: encoder(before, lengths))
    assert torch.equal(encoder.frozen(tokens, lengths), before)


# Padding


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("trainable", [0, 1, "all"])
def test_padding_and_neighbours_do_not_change_a_title(trainable, name):
    encoder, (tokens, lengths) = text_encoder(trainable, name).eval(), some_tokens()
    together = encoder(stored(encoder, tokens, lengths), lengths)
    garbage = torch.where(torch.arange(TOKENS) < lengths[:, None], tokens, 7)
    padded = encoder(stored(encoder, garbage, lengths), lengths)
    assert torch.allclose(together, padded, atol=1e-5)
    for i, length in enumerate(lengths):
        alone = encoder(
            stored(encoder, tokens[i : i + 1, :length], lengths[i : i + 1]), lengths[i : i + 1]
        )
        assert torch.allclose(alone[0], together[i], atol=1e-5)


# Files


def outputs(encoder, *inputs) -> torch.Tensor:
    encoder.eval()
    return encoder(stored(encoder, *inputs), *inputs[1:])


@pytest.mark.parametrize("trainable", PARTS)
def test_a_saved_image_encoder_loads_as_it_was(trainable, tmp_path):
    encoder, pixels = image_encoder(trainable), some_pixels(4)
    save_encoder(encoder, tmp_path / "a")
    save_encoder(load_image_encoder(tmp_path / "a"), tmp_path / "b")
    again = load_image_encoder(tmp_path / "b")
    assert torch.equal(outputs(again, pixels), outputs(encoder, pixels))
    assert (again.kind, again.first, again.width) == (encoder.kind, encoder.first, encoder.width)
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in encoder.parameters()
    ]
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes()
        for n in ("encoder.json", "weights.safetensors")
    )


@pytest.mark.parametrize("trainable", PARTS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_saved_text_encoder_loads_as_it_was(trainable, name, tmp_path):
    encoder, (tokens, lengths) = text_encoder(trainable, name), some_tokens()
    save_encoder(encoder, tmp_path / "a")
    save_encoder(load_text_encoder(tmp_path / "a"), tmp_path / "b")
    again = load_text_encoder(tmp_path / "b")
    assert torch.equal(outputs(again, tokens, lengths), outputs(encoder, tokens, lengths))
    assert (again.kind, again.first, again.width) == (encoder.kind, encoder.first, encoder.width)
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes()
        for n in ("encoder.json", "weights.safetensors")
    )


@pytest.mark.parametrize("trainable", [0, 1, "all"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_seed_draws_anew_only_what_trains(kind, trainable, tmp_path):
    make, load = {
        "image": (image_encoder, load_image_encoder),
        "text": (text_encoder, load_text_encoder),
    }[kind]
    inputs = (some_pixels(4),) if kind == "image" else some_tokens(4)
    encoder = make(trainable)
    save_encoder(encoder, tmp_path)
    one, same, two = (load(tmp_path, seed=s) for s in (1, 1, 2))
    assert torch.equal(outputs(one, *inputs), outputs(same, *inputs))
    assert torch.equal(outputs(one, *inputs), outputs(two, *inputs)) == (trainable == 0)
    assert torch.equal(outputs(one, *inputs), outputs(encoder, *inputs)) == (trainable == 0)
    if encoder.kind != "inputs":
        assert torch.equal(one.frozen(*inputs), encoder.frozen(*inputs))


def test_a_seed_leaves_weights_of_a_checkpoint_alone(tmp_path):
    source, pixels = image_encoder("all", seed=5), some_pixels(3)
    save_file(source.model.state_dict(), tmp_path / "weights.safetensors")
    encoder = create_image_encoder(
        "vit_tiny_patch16_224", str(tmp_path / "weights.safetensors"), VIT, 48, 1
    )
    save_encoder(encoder, tmp_path / "a")
    assert torch.allclose(
        outputs(load_image_encoder(tmp_path / "a", seed=3), pixels),
        outputs(source, pixels),
        atol=1e-5,
    )


# Picture sizes


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv2_100", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_finding_size_and_width_draws_no_random_number(name):
    told = {} if name in ("resnet10t", "mobilenetv2_100") else {"img_size": 64}
    torch.manual_seed(3)
    theirs, after = (
        timm.create_model(name, num_classes=0, **told).state_dict(),
        torch.get_rng_state(),
    )
    torch.manual_seed(3)
    ours = create_image_encoder(name, "random", {}, 64, 0).model
    assert torch.equal(torch.get_rng_state(), after) and ours.training
    assert all(torch.equal(w, theirs[n]) for n, w in ours.state_dict().items())


def image_file(name: str, options: dict, folder):
    """Weights of `name` at its own size, with a head, as timm's users have them: a file in a folder
    that names the model."""
    torch.manual_seed(1)
    timm.models.save_for_hf(
        timm.create_model(name, **options), folder, model_args=options, safe_serialization=True
    )
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "beit_base_patch16_224",
        "swin_tiny_patch4_window7_224",
        "convnext_atto",
    ],
)
def test_weights_of_another_size_are_interpolated_as_timms(name, tmp_path):
    options, path = FAMILIES[name], image_file(name, FAMILIES[name], tmp_path)
    encoder = create_image_encoder(name, str(path), options, 64, 0)
    told = {} if name == "convnext_atto" else {"img_size": 64}
    theirs = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        num_classes=0,
        **told,
        **options,
    ).state_dict()
    assert all(torch.equal(w, theirs[n]) for n, w in encoder.model.state_dict().items())


@pytest.mark.parametrize("how", ["folder", "local-dir"])
def test_a_local_folder_is_read_at_another_size(how, tmp_path):
    path = image_file("vit_tiny_patch16_224", VIT, tmp_path)
    folder = str(tmp_path) if how == "folder" else f"local-dir:{tmp_path}"
    pixels = some_pixels(3)
    for size in (48, 32):
        encoder = create_image_encoder(folder, "pretrained", {}, size, 1)
        same = create_image_encoder(
            "vit_tiny_patch16_224", str(path), {**VIT, "img_size": size}, size, 1
        )
        ours = outputs(encoder, pixels[:, :size, :size])
        assert torch.equal(ours, outputs(same, pixels[:, :size, :size]))
        save_encoder(encoder, tmp_path / "saved")
        assert torch.equal(
            outputs(load_image_encoder(tmp_path / "saved"), pixels[:, :size, :size]), ours
        )


@pytest.mark.parametrize(
    "name, size, own, weights",
    [
        ("mixer_s32_224", 128, 224, "file"),
        ("mixer_s32_224", 128, 224, "pretrained"),
        ("efficientformer_l1", 128, 224, "random"),
        ("eca_halonext26ts", 128, 256, "random"),
        ("vit_tiny_patch16_224", 64, 48, "random"),
    ],
)
def test_an_impossible_picture_size_is_one_sentence(name, size, own, weights, tmp_path):
    options = VIT if name == "vit_tiny_patch16_224" else {}
    file = image_file(name, options, tmp_path / name) if weights != "random" else None
    source, weights = (
        (str(tmp_path / name) if weights == "pretrained" else name),
        str(file) if weights == "file" else weights,
    )
    with pytest.raises(
        MufinError, match=f"encoder.image.size is {size}, .*{name} .* its own size is {own}"
    ) as error:
        create_image_encoder(source, weights, options, size, 0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


# Names and settings that fail


@pytest.fixture
def offline(monkeypatch):
    """As HF_HUB_OFFLINE=1, which is read once, on import."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    "make, setting",
    [
        (
            lambda: create_image_encoder("no_such_net", "random", {}, 48, 0),
            "encoder.image.name is 'no_such_net'",
        ),
        (
            lambda: create_image_encoder("no_such_net", "pretrained", {}, 48, 0),
            "encoder.image.name is 'no_such_net'",
        ),
        (
            lambda: create_image_encoder("vit_tiny_patch16_224", "pretrained", {}, 224, 0),
            "encoder.image.name is 'vit_tiny_",
        ),
        (
            lambda: create_image_encoder("vit_tiny_patch16_224", "random", {"no_such": 1}, 48, 0),
            "encoder.image.name is .*no_such",
        ),
        (
            lambda: create_image_encoder(
                "vit_tiny_patch16_224", "random", {**VIT, "num_heads": 7}, 48, 0
            ),
            "encoder.image.name",
        ),
        (
            lambda: create_image_encoder("vit_tiny_patch16_224", "no/file", VIT, 48, 0),
            "encoder.image.weights is 'no/file'",
        ),
        (
            lambda: create_image_encoder(
                "vit_tiny_patch16_224", "random", VIT | {"global_pool": ""}, 48, 0
            ),
            "encoder.image.options",
        ),
        (
            lambda: create_image_encoder("resnet10t", "random", {"img_size": 48}, 48, 0),
            "encoder.image.name is .*img_size",
        ),
        (
            lambda: create_text_encoder("vit", "random", BERT, 0, 60),
            "encoder.text.name gives a ViTModel",
        ),
        (
            lambda: create_text_encoder("no-such-model", "pretrained", {}, 1),
            "encoder.text.name is 'no-such-model'",
        ),
        (
            lambda: create_text_encoder("no-such/model", "pretrained", {}, 1),
            "encoder.text.name is 'no-such/model'",
        ),
        (
            lambda: create_text_encoder("no-such-type", "random", {}, 1, 60),
            "encoder.text.name is 'no-such-type'",
        ),
        (
            lambda: create_text_encoder("bert", "random", BERT | {"num_attention_heads": 5}, 1, 60),
            "encoder.text.name is 'bert'",
        ),
        (lambda: load_tokenizer("no-such/model"), "encoder.text.name is 'no-such/model'"),
    ],
)
def test_an_unavailable_model_is_one_sentence(make, setting, offline):
    with pytest.raises(MufinError, match=setting) as error:
        make()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_checkpoint_of_another_model_says_what_it_lacks(tmp_path):
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(
        MufinError, match="encoder.image.weights is .* lacks .* give a checkpoint of the same model"
    ):
        create_image_encoder(
            "vit_tiny_patch16_224", str(tmp_path / "other.safetensors"), VIT, 48, 0
        )


@pytest.mark.parametrize(
    "content", [b"no weights", None], ids=["not a checkpoint", "of another width"]
)
def test_a_useless_checkpoint_is_one_sentence(content, tmp_path):
    path = image_file("vit_tiny_patch16_224", VIT, tmp_path)
    if content:
        path.write_bytes(content)
    with pytest.raises(
        MufinError,
        match="encoder.image.weights is .* does not fit .* give a checkpoint of the same model",
    ) as error:
        create_image_encoder("vit_tiny_patch16_224", str(path), VIT | {"embed_dim": 32}, 48, 0)
    assert "\n" not in str(error.value)
