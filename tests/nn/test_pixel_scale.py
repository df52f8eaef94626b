"""Mean and std of pixels: those that the weights were trained with, from wherever they are said."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from mufin.errors import MufinError
from mufin.nn.encoder_files import save_encoder
from mufin.nn.image_encoder import create_image_encoder, load_image_encoder
from mufin.nn.vision_language import create_clip_image_encoder, load_encoder
from tests.support.stages import inside, made, pixels_of, run_stages

NET, SIZE = "resnet10t", 32
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # the default of `NET`
OTHER = [0.5, 0.4, 0.3], [0.25, 0.35, 0.45]
OPENAI = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CLIP_TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NET, num_classes=0).eval()


def pixels(size: int = SIZE) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, size, size, 3), generator=g, dtype=torch.uint8)


def features(model: torch.nn.Module, scale: tuple[list, list]) -> torch.Tensor:
    """What `NET` returns for pixels that are normalised by hand."""
    x = (pixels() / 255 - torch.tensor(scale[0])) / torch.tensor(scale[1])
    with torch.no_grad():
        return model(x.permute(0, 3, 1, 2))


def checkpoint(folder: Path, files: dict[str, object]) -> str:
    """The weights of `net` in a folder with these JSON files."""
    folder.mkdir(exist_ok=True)
    save_file(net().state_dict(), folder / "model.safetensors")
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / "model.safetensors")


def created(weights: str, **options):
    return create_image_encoder(NET, weights, options, SIZE, 0)


MEAN, STD = OTHER
TIMM = {"architecture": NET, "pretrained_cfg": {"mean": MEAN, "std": STD}}
BESIDE = {
    "timm": ({"config.json": TIMM}, "config.json"),
    "timm of old": ({"config.json": {"architecture": NET, "mean": MEAN, "std": STD}}, "config"),
    "transformers": (
        {"preprocessor_config.json": {"image_mean": MEAN, "image_std": STD}},
        "preprocessor_config.json",
    ),
    "transformers 5": (
        {"processor_config.json": {"image_processor": {"image_mean": MEAN, "image_std": STD}}},
        "processor_config.json",
    ),
    "open_clip": (
        {"open_clip_config.json": {"preprocess_cfg": {"mean": MEAN, "std": STD}}},
        "open_clip_config.json",
    ),
    "after a config without": (
        {"config.json": {"architecture": NET}, "preprocessor_config.json": {"image_mean": MEAN}}
        | {"processor_config.json": {"image_mean": MEAN, "image_std": STD}},
        "processor_config.json",
    ),
}


@pytest.mark.parametrize("how", BESIDE)
def test_values_beside_a_checkpoint_are_used(how, tmp_path):
    files, origin = BESIDE[how]
    encoder = created(checkpoint(tmp_path, files))
    ours = encoder.frozen(pixels())
    assert torch.allclose(ours, features(net(), OTHER), atol=1e-4)
    assert not torch.allclose(ours, features(net(), IMAGENET), atol=1e-2)
    assert encoder.spec.mean == MEAN and encoder.spec.std == STD
    assert encoder.spec.mean_std_from.startswith("from " + origin)
    save_encoder(encoder, tmp_path / "saved")
    again = load_image_encoder(tmp_path / "saved")
    assert again.spec == encoder.spec and torch.equal(again.frozen(pixels()), ours)


def test_the_folder_that_timm_saves_is_read(tmp_path):
    model = timm.create_model(NET, pretrained_cfg_overlay={"mean": MEAN, "std": STD})
    save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = created(str(tmp_path / "model.safetensors"))
    same = create_image_encoder(str(tmp_path), "pretrained", {}, SIZE, 0)
    model.reset_classifier(0)
    for ours in (encoder.frozen(pixels()), same.frozen(pixels())):
        assert torch.allclose(ours, features(model.eval(), OTHER), atol=1e-4)
    assert same.spec.mean_std_from == f"of the timm model {NET}"


def test_without_values_the_defaults_are_used_and_said(tmp_path):
    encoder = created(checkpoint(tmp_path, {}))
    assert torch.allclose(encoder.frozen(pixels()), features(net(), IMAGENET), atol=1e-4)
    assert encoder.scale.said() == (
        f"encoder.image normalises pixels with mean {IMAGENET[0]} and std {IMAGENET[1]} (the "
        f"defaults of the timm model {NET}: no file beside the checkpoint has others); "
        "encoder.image.options.mean and std set others"
    )
    assert created("random").spec.mean_std_from == f"of the timm model {NET}"


def test_options_decide_before_any_file(tmp_path):
    encoder = created(checkpoint(tmp_path, {"config.json": TIMM}), mean=OPENAI[0], std=OPENAI[1])
    assert torch.allclose(encoder.frozen(pixels()), features(net(), OPENAI), atol=1e-4)
    assert encoder.spec.mean_std_from == "from encoder.image.options"
    assert not {"mean", "std"} & set(encoder.spec.options)
    assert created("random", mean=0.5, std=0.25).spec.mean == [0.5] * 3


def test_a_checkpoint_of_timms_training_is_read_with_its_args(tmp_path):
    state = {"module." + name: weight for name, weight in net().state_dict().items()}
    args = argparse.Namespace(model=NET, mean=MEAN, std=STD)
    content = {"epoch": 3, "arch": NET, "state_dict": state, "args": args}
    torch.save(content, tmp_path / "last.pth.tar")
    encoder = created(str(tmp_path / "last.pth.tar"))
    assert torch.allclose(encoder.frozen(pixels()), features(net(), OTHER), atol=1e-4)
    assert encoder.spec.mean_std_from == "from the args in the checkpoint"
    content["args"] = argparse.Namespace(model=NET, mean=None, std=None)
    torch.save(content, tmp_path / "last.pth.tar")
    assert "the defaults" in created(str(tmp_path / "last.pth.tar")).spec.mean_std_from


def test_a_model_that_reads_plain_pixels_gets_them(tmp_path):
    files = {"preprocessor_config.json": {"do_normalize": False, "image_mean": MEAN}}
    ours = created(checkpoint(tmp_path, files)).frozen(pixels())
    assert torch.allclose(ours, features(net(), ([0.0] * 3, [1.0] * 3)), atol=1e-4)


@pytest.mark.parametrize(
    "files, message",
    [
        ({"config.json": TIMM | {"architecture": "resnet18"}}, "is that of 'resnet18', and"),
        ({"config.json": "{"}, "config.json cannot be read"),
        ({"config.json": "[" * 100_000}, "config.json cannot be read"),
        ({"config.json": "\udcff"}, None),
        ({"config.json": {"mean": [0.5] * 4, "std": STD}}, r"mean of the pixels is \[0.5, 0.5"),
        ({"config.json": {"mean": MEAN, "std": [0.0, 1, 1]}}, r"std of the pixels is \[0.0, 1"),
        ({"config.json": {"mean": [float("nan")] * 3, "std": STD}}, r"mean of the pixels is \[nan"),
        ({"config.json": {"mean": "x" * 9999, "std": STD}}, "mean of the pixels is 'xxx"),
        ({"config.json": {"mean": [123.7, 116.3, 103.5], "std": STD}}, "three numbers in"),
        ({"config.json": []}, None),
        ({"config.json": {"pretrained_cfg": 3, "architecture": [1]}}, None),
    ],
    ids=str,
)
def test_broken_or_foreign_values_are_one_sentence(files, message, tmp_path):
    files = {n: c.replace("\udcff", "{}") if isinstance(c, str) else c for n, c in files.items()}
    path = checkpoint(tmp_path, files)
    if message is None:  # nothing is said there: the defaults
        assert created(path).spec.mean == IMAGENET[0]
        return
    with pytest.raises(MufinError, match=message) as error:
        created(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(path)


@pytest.mark.parametrize("options", [{"mean": MEAN}, {"std": STD}, {"mean": MEAN, "std": [1, 2]}])
def test_bad_options_are_one_sentence(options):
    with pytest.raises(MufinError, match="encoder.image.options"):
        created("random", **options)


# CLIP


def clip_folder(folder: Path, **scale: list) -> Path:
    torch.manual_seed(1)
    config = CLIPConfig(
        text_config=CLIP_TOWER | {"vocab_size": 50},
        vision_config=CLIP_TOWER | {"image_size": SIZE, "patch_size": 16},
        projection_dim=20,
    )
    CLIPModel(config).save_pretrained(folder)
    if scale:
        CLIPImageProcessor(**scale).save_pretrained(folder)
    return folder


def clip(name: Path, weights: str = "pretrained", **options):
    return create_clip_image_encoder(str(name), weights, options, SIZE, 0)


def test_clips_values_are_those_of_its_preprocessor(tmp_path):
    plain = clip_folder(tmp_path / "plain")
    other = clip_folder(tmp_path / "other", image_mean=MEAN, image_std=STD)
    file = str(other / "model.safetensors")
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((other / "model.safetensors").read_bytes())
    expected = {
        "preprocessor_config.json of the model": clip(other),
        "json beside the checkpoint": clip(plain, file),
        "from preprocessor_config.json of the model: no file": clip(other, str(bare)),
        "from encoder.image.options": clip(plain, mean=MEAN, std=STD),
    }
    for origin, encoder in expected.items():
        assert encoder.spec.mean == MEAN and encoder.spec.std == STD
        assert origin in encoder.spec.mean_std_from
        assert torch.equal(encoder.mean.flatten(), torch.tensor(MEAN) * 255)
    for encoder in (clip(plain), clip(plain, str(bare))):
        assert encoder.spec.mean == OPENAI[0]
        assert encoder.spec.mean_std_from.startswith("the defaults of OpenAI's CLIP")
    save_encoder(clip(other), tmp_path / "saved")
    again, size = load_encoder(tmp_path / "saved"), (pixels(),)
    assert torch.equal(again.frozen(*size), clip(other).frozen(*size))
    assert not torch.allclose(again.frozen(*size), clip(plain).frozen(*size), atol=1e-3)


# The stage


def test_precompute_says_and_records_the_values(tmp_path, capsys):
    with inside(tmp_path, **{"download.sample.products": 100}):
        run_stages(tmp_path, "download", "curate")
    path = checkpoint(tmp_path / "weights", {"config.json": TIMM})
    changes = {
        "encoder.modalities": ["image"],
        "encoder.image.name": NET,
        "encoder.image.options": {},
        "encoder.image.weights": path,
        "encoder.image.trainable_blocks": 0,
    }
    folder = made(tmp_path, "file", **changes)
    said = [line for line in capsys.readouterr().err.splitlines() if "normalises" in line]
    assert said == [created(path).scale.said()]
    image = json.loads((folder / "manifest.json").read_text())["image"]
    facts = json.loads((folder.parents[1] / "metrics/precompute.json").read_text())["image"]
    for record in (image, facts):
        assert (record["mean"], record["std"]) == OTHER
        assert record["mean_std_from"] == "from config.json beside the checkpoint"
    stored = torch.from_numpy(np.load(folder / "image_inputs-00000.npy")[:4])
    seen = torch.from_numpy(pixels_of(tmp_path, SIZE)[:4])
    x = ((seen / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        theirs = net()(x)
    assert torch.cosine_similarity(stored, theirs).min() > 0.99999
