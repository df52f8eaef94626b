"""BERT without transformers: the bits of `transformers.BertModel`, and only where it is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mufin.errors import ArtifactError
from mufin.nn.bert import BertTextEncoder, bert_for_predictions
from mufin.nn.encoder_files import save_encoder
from mufin.nn.text_encoder import TextEncoder, create_text_encoder

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}


def encoder(trainable: int | str = "all", kind: str = "bert", **options: object) -> TextEncoder:
    return create_text_encoder(kind, "random", SMALL | options, trainable, 60)


def titles(n: int, length: int, full: bool) -> tuple[Tensor, Tensor]:
    """Tokens (n, length), padded with 0, and their lengths (n,), of which some are 0."""
    lengths = torch.full((n,), length) if full else torch.arange(n) % (length + 1)
    return torch.randint(1, 60, (n, length)) * (torch.arange(length) < lengths[:, None]), lengths


@pytest.mark.parametrize("full", [True, False], ids=["full", "padded"])
@pytest.mark.parametrize("n, length", [(1, 32), (9, 7), (70, 16), (3, 1)])
def test_it_returns_the_bits_of_transformers(n, length, full):
    torch.manual_seed(n)
    theirs = encoder().eval()
    ours = BertTextEncoder(theirs.spec.config).eval()
    ours.load_state_dict(theirs.state_dict())
    inputs = titles(n, length, full)
    with torch.inference_mode():
        assert torch.equal(ours(*inputs), theirs(*inputs))


def saved(folder: Path, **given: object) -> Path:
    save_encoder(encoder(**given), folder)
    return folder


@pytest.mark.parametrize("trainable", ["all", 2, 5])
def test_a_plain_bert_that_trains_as_a_whole_is_replaced(trainable, tmp_path):
    made = bert_for_predictions(saved(tmp_path, trainable=trainable))
    assert isinstance(made, BertTextEncoder) and made.width == 24


@pytest.mark.parametrize(
    "given",
    [{"trainable": 1}, {"trainable": 0}, {"hidden_act": "relu"}, {"is_decoder": True}],
    ids=str,
)
def test_another_model_is_left_to_transformers(given, tmp_path):
    assert bert_for_predictions(saved(tmp_path, **given)) is None


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**7}, {"hidden_size": "wide"}], ids=str)
def test_a_broken_spec_is_one_error(change, tmp_path):
    path = saved(tmp_path) / "encoder.json"
    facts = json.loads(path.read_text())
    facts["config"] |= change
    path.write_text(json.dumps(facts))
    with pytest.raises(ArtifactError, match="cannot be loaded .*; run `dvc repro precompute`"):
        bert_for_predictions(tmp_path)
