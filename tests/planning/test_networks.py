"""Operations and bytes of the networks: closed forms, and torch's counter on real tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Bag, Pooling
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.text_encoder import create_text_encoder
from mufin.params import load_params
from mufin.planning.encoders import image_cost, text_cost, whole_image_step
from mufin.planning.network import network_of
from mufin.planning.networks import measured
from mufin.planning.sizes import sizes_of
from mufin.profiles import read_profile
from tests.support.projects import ROOT, changed
from tests.support.stages import SMALL


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Settings of small encoders with random weights."""
    path = tmp_path_factory.mktemp("small") / "params.yaml"
    path.write_text(changed(ROOT / "params.yaml", SMALL))
    return load_params(path)


def of_vit(tokens: int, width: int, blocks: int, patch: int) -> float:
    """Operations of a ViT: 24 T C^2 and 4 T^2 C per block, and the patches."""
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return blocks * block + 2 * (tokens - 1) * 3 * patch**2 * width


def of_bert(tokens: int, width: int, wide: int, layers: int) -> float:
    return layers * (8 * tokens * width**2 + 4 * tokens * width * wide + 4 * tokens**2 * width)


def test_vit_b32_takes_8_82_gflop_per_picture():
    cost = image_cost(replace(read_profile("paper").encoder.image, trainable_blocks=0))
    assert cost.frozen == pytest.approx(8.82e9, rel=0.002)
    assert cost.frozen == pytest.approx(of_vit(50, 768, 12, 32), rel=0.001)
    assert (cost.kind, cost.stored) == ("descriptors", 768 * 4)


def test_last_block_alone_takes_0_13_gflop_and_76_800_bytes():
    cost = image_cost(read_profile("paper").encoder.image)
    assert cost.trained.forward == pytest.approx(0.130e9, rel=0.01)
    assert cost.frozen == pytest.approx(of_vit(50, 768, 11, 32), rel=0.001)
    assert (cost.kind, cost.stored) == ("activations", 50 * 768 * 2)


def test_distilbert_takes_2_74_gflop_per_title():
    cost = text_cost(read_profile("paper").encoder.text)
    assert cost.trained.forward == pytest.approx(2.74e9, rel=0.002)
    assert cost.trained.forward == pytest.approx(of_bert(32, 768, 3072, 6), rel=0.001)
    assert cost.trained.step == pytest.approx(3 * cost.trained.forward, rel=0.001)
    assert cost.parameters == pytest.approx(66.4e6, rel=0.01)


def test_titles_count_the_tokens_of_their_group():
    s = read_profile("paper").encoder.text
    cost = text_cost(s, mean=20.41)  # of MUFIN Table 1; 25 tokens with [CLS], [SEP] and padding
    assert cost.trained.forward == pytest.approx(of_bert(25, 768, 3072, 6), rel=0.001)
    assert cost.stored == text_cost(s).stored
    assert text_cost(s, mean=40.0) == text_cost(s)  # no more than max_tokens
    fused, most = text_cost(s, extra_tokens=5, mean=20.41), text_cost(s, extra_tokens=5)
    assert cost.trained.forward < fused.trained.forward < most.trained.forward


def test_an_unknown_text_model_is_a_bert_and_said_so(small):
    s = replace(small.encoder.text, weights="pretrained", name="nobody/titles-v1", options={})
    assert "the usual sizes of bert" in text_cost(s).assumed


def test_small_encoders_have_the_closed_forms(small):
    image, text = image_cost(small.encoder.image), text_cost(small.encoder.text)
    assert image.frozen == of_vit(5, 24, 2, 16)
    pooler = 2 * 24**2  # of transformers' BERT, whose output is not used
    assert text.trained.forward == of_bert(16, 24, 32, 2) + pooler


def test_counts_equal_those_of_real_tensors(small):
    s = small.encoder
    image = create_image_encoder(s.image.name, "random", s.image.options, s.image.size, 0)
    text = create_text_encoder(s.text.name, "random", s.text.options, "all", 100)
    with FlopCounterMode(display=False) as counter:
        image.frozen(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))
    assert counter.get_total_flops() == 3 * image_cost(s.image).frozen
    tokens = torch.ones(3, s.text.max_tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        text(tokens, torch.full((3,), s.text.max_tokens)).sum().backward()
    assert counter.get_total_flops() == 3 * text_cost(s.text).trained.step


def test_a_share_of_layers_is_frozen(small):
    whole = text_cost(small.encoder.text)
    half = text_cost(replace(small.encoder.text, trainable_layers=1))
    assert half.frozen == half.trained.forward == whole.trained.forward / 2
    assert half.stored == 16 * 24 * 2
    assert text_cost(replace(small.encoder.text, trainable_layers=0)).stored == 24 * 4


def test_self_supervision_trains_all_of_the_encoder(small):
    assert whole_image_step(small.encoder.image).forward == image_cost(small.encoder.image).frozen


def test_self_attention_counts_eight_squares_per_row():
    a_s, m, dim = SelfAttention(12), 5, 12
    with torch.device("meta"):
        a_s = a_s.to("meta")
    cost = measured(
        lambda n: a_s(
            torch.zeros(n, m, dim, requires_grad=True), torch.ones(n, m, dtype=torch.bool)
        )
    )
    assert cost.forward == 8 * m * dim**2 + 4 * m**2 * dim


def test_label_side_has_the_bytes_of_its_arrays(small):
    params = replace(small, transfer=replace(small.transfer, a_c="attention"))
    network = network_of(params, sizes_of(params, {}, {}, None))
    rows, dim, labels = network.longest, params.encoder.dim, 7
    z = Bag(torch.rand(labels, rows, dim), torch.zeros(labels, rows, dtype=torch.int8))
    side = CrossAttention(dim).label_side(z, torch.rand(labels, dim), Pooling())
    size = sum(t.numel() * t.element_size() for t in side.tensors())
    assert network.side_bytes == size / labels
