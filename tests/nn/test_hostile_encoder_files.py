"""Checkpoint files and saved encoders that are broken or foreign: one sentence, no code is run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from transformers import BertConfig, CLIPConfig

from mufin.errors import ArtifactError, MufinError
from mufin.nn.encoder_files import save_encoder
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.text_encoder import create_text_encoder
from mufin.nn.vision_language import (
    create_clip_image_encoder,
    create_clip_text_encoder,
    create_visualbert_encoder,
    load_encoder,
)

NET, SIZE = "vit_tiny_patch16_224", 32
VIT = {"img_size": SIZE, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


class Command:
    """A pickle that runs a command when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def zipped(folder: Path, content: object) -> bytes:
    """The format of torch.save, with `content` pickled by hand."""
    path = folder / "zipped.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(content))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return path.read_bytes()


def torch_saved(folder: Path, content: object) -> bytes:
    torch.save(content, folder / "saved.pth")
    return (folder / "saved.pth").read_bytes()


CHECKPOINTS = {
    "empty": lambda f: b"",
    "json": lambda f: b"{}",
    "html": lambda f: b"<!DOCTYPE html><html><body>404</body></html>",
    "noise": lambda f: bytes(range(256)) * 40,
    "pickle with code": lambda f: pickle.dumps(Command(f / "mark")),
    "zip with code": lambda f: zipped(f, {"patch_embed.proj.weight": Command(f / "mark")}),
    "legacy with code": lambda f: pickle.dumps({"state_dict": Command(f / "mark")}, 2),
    "no weights": lambda f: torch_saved(f, {}),
    "list of tensors": lambda f: torch_saved(f, [torch.zeros(3)]),
    "tensor": lambda f: torch_saved(f, torch.zeros(3)),
    "numbers by name": lambda f: torch_saved(f, {"cls_token": 3, "norm.weight": "x"}),
    "numbers as names": lambda f: torch_saved(f, {3: torch.zeros(3)}),
    "state_dict of nothing": lambda f: torch_saved(f, {"state_dict": {}, "args": 3}),
    "cut": lambda f: torch_saved(f, {"cls_token": torch.zeros(1, 1, 24)})[:-100],
    "head of safetensors": lambda f: b"\xff" * 8 + b"{}",
    "safetensors of another": lambda f: save({"x": torch.zeros(3)}),
    "other shapes": lambda f: torch_saved(f, {"cls_token": torch.zeros(1, 1, 25)}),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_foreign_checkpoint_is_one_sentence_and_runs_no_code(kind, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(CHECKPOINTS[kind](tmp_path))
    make = (
        lambda: create_image_encoder(NET, str(path), VIT, SIZE, 0),
        lambda: create_image_encoder("resnet10t", str(path), {}, SIZE, 0),
    )
    for create in make:
        with pytest.raises(MufinError, match="encoder.image.weights is ") as error:
            create()
        text = str(error.value).replace(str(tmp_path), "")
        assert "\n" not in text and len(text) <= 300
        assert text.endswith("give a checkpoint of the same model, or pretrained or random")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["pickle with code", "zip with code", "legacy with code"])
@pytest.mark.parametrize("of", ["timm", "bert", "clip"])
def test_a_model_folder_with_a_pickle_runs_no_code(of, kind, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(CHECKPOINTS[kind](tmp_path))
    configs = {
        "timm": {"architecture": NET, "model_args": VIT, "pretrained_cfg": {"num_classes": 9}},
        "bert": BertConfig(vocab_size=60, **TOWER).to_dict(),
        "clip": CLIPConfig(projection_dim=20).to_dict(),
    }
    (tmp_path / "config.json").write_text(json.dumps(configs[of], default=str))
    make = {
        "timm": lambda: create_image_encoder(str(tmp_path), "pretrained", {}, SIZE, 0),
        "bert": lambda: create_text_encoder(str(tmp_path), "pretrained", {}, 0),
        "clip": lambda: create_clip_image_encoder(str(tmp_path), "pretrained", {}, SIZE, 0),
    }
    with pytest.raises(MufinError):
        make[of]()
    assert not (tmp_path / "mark").exists()


def test_the_code_in_those_pickles_does_run_when_it_is_read(tmp_path):
    pickle.loads(CHECKPOINTS["pickle with code"](tmp_path))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "link to itself"])
def test_a_path_without_a_checkpoint_is_one_sentence(kind, tmp_path):
    path = tmp_path / "weights"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    with pytest.raises(MufinError, match="must be pretrained, random or the path"):
        create_image_encoder(NET, str(path), VIT, SIZE, 0)


# Saved encoders


def encoders() -> dict:
    torch.manual_seed(0)
    clip = TOWER | {"projection_dim": 20}
    fresh = 12, 60  # most tokens, vocabulary
    return {
        "image": create_image_encoder(NET, "random", VIT, SIZE, 1),
        "text": create_text_encoder("bert", "random", TOWER, 1, 60),
        "clip image": create_clip_image_encoder(
            "clip", "random", clip | {"patch_size": 16}, SIZE, 0
        ),
        "clip text": create_clip_text_encoder("clip", "random", clip, 0, *fresh),
        "visualbert": create_visualbert_encoder(
            "visualbert", "random", TOWER, 0, 12, 10, [2, 3], 60
        ),
    }


KINDS = ["image", "text", "clip image", "clip text", "visualbert"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    for name, encoder in encoders().items():
        save_encoder(encoder, folder / name)
    return folder


def copied(saved: Path, kind: str, folder: Path) -> Path:
    for name in ("encoder.json", "weights.safetensors"):
        (folder / name).write_bytes((saved / kind / name).read_bytes())
    return folder


def refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="run `dvc repro") as error:
        load_encoder(folder, 3)
    text = str(error.value).replace(str(folder), "")
    assert "\n" not in text and len(text) <= 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_encoder_that_is_cut_is_one_sentence(saved, kind, tmp_path):
    for name in ("encoder.json", "weights.safetensors"):
        content = (saved / kind / name).read_bytes()
        bad = [b"", b"{}", b"[]", b"null", b"3", b'"x"', content[: len(content) // 2], content[:-1]]
        for wrong in [*bad, b"[" * 100_000, b"\xff\xfe"]:
            (copied(saved, kind, tmp_path) / name).write_bytes(wrong)
            refused(tmp_path)
        (tmp_path / name).unlink()
        refused(tmp_path)
        (tmp_path / name).mkdir()
        refused(tmp_path)
        (tmp_path / name).rmdir()


VALUES = [None, -1, 1.5, float("nan"), "../x", {"a": 1}, 10**6, 10**30]


@pytest.mark.parametrize("kind", KINDS)
def test_any_wrong_value_of_a_spec_is_one_sentence_or_a_working_encoder(saved, kind, tmp_path):
    copied(saved, kind, tmp_path)
    spec = json.loads((tmp_path / "encoder.json").read_text())
    sections = [spec] + [spec[n] for n in ("config", "options") if isinstance(spec.get(n), dict)]
    checked = 0
    for section in sections:
        for name in [n for n in section if n in USED]:
            right = section[name]
            for value in VALUES:
                section[name] = value
                (tmp_path / "encoder.json").write_text(json.dumps(spec))
                try:
                    load_encoder(tmp_path, 3)
                except ArtifactError as error:
                    text = str(error).replace(str(tmp_path), "")
                    assert "\n" not in text and len(text) <= 300
                    checked += 1
            section[name] = right
    assert checked > 30
    (tmp_path / "encoder.json").write_text(json.dumps(spec))
    load_encoder(tmp_path)


USED = {  # values of specs that decide what is built
    *("trainable", "random", "name", "size", "options", "mean", "std", "config", "family"),
    *("untitled", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "patch_size", "embed_dim", "depth", "projection_dim", "image_size"),
}


@pytest.mark.parametrize("name", ["hf-hub:timm/no_such", "local-dir:/", "/", "https://127.0.0.1/"])
def test_a_saved_encoder_is_never_looked_up_elsewhere(saved, name, tmp_path):
    spec = json.loads((copied(saved, "image", tmp_path) / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(spec | {"name": name}))
    with pytest.raises(ArtifactError, match="is not a timm model"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_other_shapes_are_one_sentence(saved, kind, tmp_path):
    other = "text" if kind == "image" else "image"
    copied(saved, kind, tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(
        (saved / other / "weights.safetensors").read_bytes()
    )
    refused(tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    refused(tmp_path)
