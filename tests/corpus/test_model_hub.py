"""Models by name: the copy on this machine first, then one short try of the model hub."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
from transformers import BertConfig, BertModel

from mufin.corpus import model_hub
from mufin.corpus.model_hub import HubUnreachable, loaded, no_copy
from mufin.corpus.tokens import learn_wordpiece, save_tokenizer
from tests.support.projects import ROOT

CREATE = {
    "text": "text_encoder.create_text_encoder('some/model', 'pretrained', {}, 'all')",
    "tokenizer": "tokens.load_tokenizer('some/model')",
    "whole text": "text_encoder.create_text_encoder('a/whole', 'pretrained', {}, 'all')",
    "whole tokenizer": "tokens.load_tokenizer('a/whole')",
    "half text": "text_encoder.create_text_encoder('a/half', 'pretrained', {}, 'all')",
    "half tokenizer": "tokens.load_tokenizer('a/half')",
    "image": "image_encoder.create_image_encoder('vit_tiny_patch16_224', 'pretrained', {}, 224, 0)",
    "clip": "vision_language.create_clip_image_encoder('some/model', 'pretrained', {}, 32, 0)",
}
SCRIPT = """
import sys, time
slept = []
time.sleep = slept.append
from mufin.corpus import tokens
from mufin.errors import MufinError
from mufin.nn import image_encoder, text_encoder, vision_language
for create in sys.argv[1:]:
    try:
        eval(create)
        print("made")
    except MufinError as error:
        print(error)
assert not slept
"""


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """The address of a hub whose port is closed while the tests run."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(
            ("127.0.0.1", 0)
        )  # bound and not listening: refused, and no other program gets it
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def run(*creates: str, home: Path, endpoint: str, **more: str) -> tuple[dict[str, str], str]:
    """What a process says that makes these models without a wait; and its stderr."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(CREATE[name] for name in creates)],
        env=kept | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(ROOT)} | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(creates, done.stdout.splitlines(), strict=True)), done.stderr


def test_without_a_copy_or_network_one_sentence_at_once(said, nowhere):
    for name in ("text", "tokenizer", "image", "clip"):
        answer = said[0][name]
        setting = "encoder.image.name" if name in ("image", "clip") else "encoder.text.name"
        assert answer.startswith(f"{setting} is ") and "no whole local copy" in answer
        assert nowhere in answer and "local folder" in answer and "HF_HUB_OFFLINE=1" in answer
        assert len(answer) <= 300


def cached(home: Path, name: str, files: Path) -> None:
    """Puts a model into the hub's cache, as a download does."""
    folder = home / f"hub/models--{name.replace('/', '--')}"
    commit = "0" * 40
    shutil.copytree(files, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(commit)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = BertConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    save_tokenizer(learn_wordpiece(["kettle lamp mug"] * 3, 64, 8), folder)
    return folder


@pytest.fixture(scope="module")
def said(model, tmp_path_factory, nowhere) -> tuple[dict[str, str], str]:
    """What a process says that makes all models; a/whole is in the cache, a/half is in part."""
    home = tmp_path_factory.mktemp("hub")
    half = home / "half"
    shutil.copytree(model, half)
    (half / "model.safetensors").unlink()
    cached(home, "a/whole", model)
    cached(home, "a/half", half)
    return run(*CREATE, home=home, endpoint=nowhere)


def test_a_copy_in_the_cache_needs_no_network(said):
    answers, stderr = said
    assert answers["whole text"] == answers["whole tokenizer"] == "made"
    assert "%|" not in stderr and "it/s" not in stderr  # no bar of the libraries


def test_half_a_copy_is_no_copy(said):
    answers, _ = said
    assert "no whole local copy" in answers["half text"] and answers["half tokenizer"] == "made"


def test_offline_mode_asks_nobody_and_ends_in_whole_words(tmp_path, nowhere):
    answers, _ = run("text", home=tmp_path, endpoint=nowhere, HF_HUB_OFFLINE="1")
    assert "couldn't find them in the cached files)" in answers["text"]


@pytest.fixture
def hub(monkeypatch) -> list[str]:
    """Answers of a hub: '' for any answer, else why there is none; the requests are counted."""
    answers: list[str] = []
    monkeypatch.setattr(model_hub, "_refusal", lambda endpoint: answers.pop(0))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return answers


def test_the_network_is_used_where_there_is_no_copy(hub, capsys):
    hub.append("")

    def load() -> float:
        drawn = float(torch.rand(()))
        if constants.HF_HUB_OFFLINE:
            raise ValueError("no copy")
        return drawn

    torch.manual_seed(3)
    first = float(torch.rand(()))
    torch.manual_seed(3)
    assert loaded("some/model", load) == first  # as if the first try had drawn nothing
    assert capsys.readouterr().err.startswith("some/model: no whole copy on this machine")
    assert constants.HF_HUB_OFFLINE is False


def test_a_folder_or_a_missing_one_is_read_once_and_its_error_kept(hub, tmp_path):
    tries = []

    def load() -> None:
        tries.append(constants.HF_HUB_OFFLINE)
        raise ValueError("broken")

    for name in (str(tmp_path), f"local-dir:{tmp_path}", f"{tmp_path}/none", "./none", "a/b/c"):
        with pytest.raises(ValueError, match="broken"):
            loaded(name, load)
    assert tries == [False] * 5


def test_an_unreachable_hub_is_one_error(hub):
    hub.append("refused")
    with pytest.raises(HubUnreachable, match=r"cannot be reached \(refused\)") as error:
        loaded("some/model", lambda: 1 / 0)
    assert len(no_copy("encoder.text.name", "x" * 300, error.value)) <= 300


def test_progress_bars_of_the_hub_are_hidden(hub):
    assert loaded("some/model", lambda: json.loads("1")) == 1
    assert are_progress_bars_disabled()
