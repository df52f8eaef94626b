"""ONNX graphs of encoders, bags and attention, compared with torch when they are written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.errors import MufinError
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Pooling
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.encoder import Encoder
from mufin.nn.feed_forward import FeedForward
from mufin.nn.given_vectors import given_encoder
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.mufin import LexicalBag, Mufin, Projection
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.nn.text_encoder import create_text_encoder
from mufin.nn.vision_language import create_clip_image_encoder, create_clip_text_encoder
from mufin.serving import onnx_graphs
from mufin.serving.onnx_graphs import Graph, write_graph

VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 32}
CLIP = BERT | {"projection_dim": 20}
T5 = {"d_model": 24, "num_layers": 2, "num_heads": 2, "d_kv": 12, "d_ff": 32}


def network_of(name: str, encoder: Encoder, projection: str, norm: bool) -> Mufin:
    """A network of one encoder; D is 16."""
    project: torch.nn.Module = Projection(encoder.width, 16, projection, 0.1)
    if norm:
        project = torch.nn.Sequential(project, torch.nn.LayerNorm(16))
    layers = SelfAttention(16), CrossAttention(16)
    return Mufin({name: encoder}, {name: project}, 16, *layers, Pooling()).eval()


def picture_graph(encoder: Encoder, projection: str = "linear", norm: bool = False) -> Graph:
    return onnx_graphs.image_graph(network_of("image", encoder, projection, norm), 32)


def title_graph(encoder: Encoder) -> Graph:
    tokens = np.arange(5, 5 + 4 * 9).reshape(4, 9)
    return onnx_graphs.text_graph(network_of("text", encoder, "linear", False), tokens)


@pytest.mark.parametrize("trainable", [0, 1, "all"])
@pytest.mark.parametrize("projection", ["linear", "maxpool", "two_layers"])
def test_parts_of_a_vit_become_one_graph(tmp_path, trainable, projection):
    encoder = create_image_encoder("vit_tiny_patch16_224", "random", VIT, 32, trainable)
    assert write_graph(picture_graph(encoder, projection, True), tmp_path / "image.onnx") < 1e-3


@pytest.mark.parametrize("trainable", [0, "all"])
def test_towers_of_clip_become_graphs(tmp_path, trainable):
    image = create_clip_image_encoder("clip", "random", CLIP | {"patch_size": 16}, 32, trainable)
    graph = picture_graph(image, "maxpool")  # 20 numbers to 16: groups of uneven size
    assert write_graph(graph, tmp_path / "image.onnx") < 1e-4
    options = CLIP | {"max_position_embeddings": 16}
    text = create_clip_text_encoder("clip", "random", options, trainable, 16, 100)
    assert write_graph(title_graph(text), tmp_path / "text.onnx") < 1e-4


@pytest.mark.parametrize("name, trainable", [("roberta", 1), ("modernbert", "all"), ("t5", 0)])
def test_text_models_become_graphs(tmp_path, name, trainable):
    encoder = create_text_encoder(name, "random", T5 if name == "t5" else BERT, trainable, 100)
    assert write_graph(title_graph(encoder), tmp_path / "text.onnx") < 1e-3


def test_title_words_become_a_graph(tmp_path):
    network = network_of("lexical", LexicalBag(30, 16), "linear", True)  # type: ignore[arg-type]
    assert write_graph(onnx_graphs.words_graph(network), tmp_path / "lexical.onnx") < 1e-4


def test_vectors_that_came_in_place_of_pictures_are_an_input(tmp_path):
    graph = picture_graph(given_encoder(12))
    assert graph.inputs == {"vectors": ("pictures", 12)}
    assert write_graph(graph, tmp_path / "image.onnx") < 1e-4


@pytest.mark.parametrize("layer", [FeedForward(16), NoSelfAttention(), SelfAttention(16, 2)])
@pytest.mark.parametrize("pooling", [Pooling(True, 0.3, True), Pooling(means=True)])
def test_variants_of_a_bag_become_graphs(tmp_path, layer, pooling):
    network = Mufin({}, {}, 16, layer, CrossAttention(16), pooling)
    assert write_graph(onnx_graphs.bag_graph(network), tmp_path / "bag.onnx") < 1e-4


@pytest.mark.parametrize("layer", [ConCat(16), CrossAttention(16, 4)], ids=["concat", "attention"])
def test_variants_of_cross_attention_become_graphs(tmp_path, layer):
    network = Mufin({}, {}, 16, SelfAttention(16), layer, Pooling(True, 0.3, True))
    assert write_graph(onnx_graphs.attention_graph(network), tmp_path / "attention.onnx") < 1e-4


def test_a_graph_leaves_its_network_as_it_is(tmp_path):
    encoder = create_image_encoder("vit_tiny_patch16_224", "random", VIT, 32, 0)
    network = network_of("image", encoder, "two_layers", True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    write_graph(onnx_graphs.image_graph(network, 32), tmp_path / "image.onnx")
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert network.projections["image"][0].linear.first.weight.shape == (20, 24)


# What is refused


def test_a_graph_that_computes_something_else_is_refused(tmp_path):
    class Baked(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * int(x.shape[0])  # tracing keeps the number of the first try

    tries = [(torch.ones(3, 2),), (torch.ones(5, 2),)]
    graph = Graph(Baked(), {"x": ("n", 2)}, {"y": ("n", 2)}, tries, "encoder.text")
    with pytest.raises(MufinError, match="encoder.text differs by .* from torch"):
        write_graph(graph, tmp_path / "text.onnx")


def test_a_graph_with_nan_is_refused(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / (x - x)

    tries = [(torch.zeros(3),)]
    graph = Graph(Broken(), {"x": ("n",)}, {"y": ("n",)}, tries, "encoder.image")
    with pytest.raises(MufinError, match="image.onnx of encoder.image differs by nan"):
        write_graph(graph, tmp_path / "image.onnx")


def test_a_network_that_onnx_cannot_hold_is_one_sentence(tmp_path, capfd):
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x)

    graph = Graph(Odd(), {"x": (2, 2)}, {"y": (2,)}, [(torch.eye(2),)], "encoder.text")
    with pytest.raises(MufinError, match="encoder.text makes text.onnx, which cannot .*--kinds"):
        write_graph(graph, tmp_path / "text.onnx")
    assert not capfd.readouterr().out  # torch would print the whole graph
