"""How a MUFIN is put together: fresh from a seed, and from its files as it was."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mufin.artifacts.contents import contents_of, seal
from mufin.artifacts.precomputed import Precomputed
from mufin.errors import ArtifactError
from mufin.nn.assembly import Member, assemble, load_members, new_member, save_members, transferred
from mufin.nn.bert import BertTextEncoder
from mufin.nn.encoder_files import save_encoder
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.mufin import Mufin
from mufin.nn.stored import StoredDescriptors
from mufin.nn.text_encoder import create_text_encoder
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from tests.support.artifacts import sealed
from tests.support.bags import architecture, bare_mufin, random_bag, shaken

NOWHERE = Precomputed(Path(tempfile.mkdtemp()))  # networks without encoders read nothing of it
seal(NOWHERE.folder)
VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def scores(network: Mufin) -> torch.Tensor:
    """(4, 5) of random bags and the network's classifiers."""
    x, z = random_bag(4, 3, 8, 1, torch.float32), random_bag(5, 2, 8, 2, torch.float32)
    with torch.no_grad():
        w = network.classifier(torch.arange(5), network.vector(z))
        return network.scores(x, network.label_side(z, w))


def some_member(seed: int = 0, **changes) -> Member:
    """A member with five classifiers and random weights."""
    facts = architecture(heads=2, num_labels=5, **changes)
    return Member(facts, shaken(assemble(facts, NOWHERE, None), seed).eval())


@pytest.fixture(scope="module")
def precomputed(tmp_path_factory) -> Precomputed:
    """Encoders whose last block trains, lexical terms, and no statistics."""
    out = Precomputed(tmp_path_factory.mktemp("precomputed"))
    torch.manual_seed(0)
    image = create_image_encoder("vit_tiny_patch16_224", "random", VIT, 32, 1)
    save_encoder(image, out.encoder("image"))
    save_encoder(create_text_encoder("bert", "random", BERT, 1, 60), out.encoder("text"))
    out.write_lexical(["malm", "billy", "lack"], Lists.of_rows([[0], [1, 2]], np.int32))
    seal(out.folder)
    return out


EVERY = dict(modalities=["text", "image", "lexical"], gates=True, image_gate=-1.0)


# Files


@pytest.mark.parametrize("outer_norm", [True, False])
@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("a_s", ["attention", "feedforward", "none"])
@pytest.mark.parametrize("a_c", ["attention", "concat", "none"])
def test_saved_members_give_the_same_scores(a_s, a_c, gates, outer_norm, tmp_path):
    member = some_member(a_s=a_s, a_c=a_c, gates=gates, outer_norm=outer_norm)
    save_members([member], tmp_path / "m", NOWHERE)
    [again] = load_members(tmp_path / "m", NOWHERE)
    assert again.architecture == member.architecture and not again.network.training
    assert torch.equal(scores(again.network), scores(member.network))


def test_saved_members_keep_their_encoders(precomputed, tmp_path):
    member = new_member(architecture(**EVERY), precomputed, 3)
    shaken(member.network)
    save_members([member], tmp_path / "m", precomputed)
    [again] = load_members(tmp_path / "m", precomputed)
    ours, theirs = weights_of(again.network), weights_of(member.network)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)


@pytest.mark.parametrize("image, text", [(0, "all"), (0, 0), (1, "all"), (0, 1)])
def test_members_for_predictions_return_the_same_bits(image, text, tmp_path):
    """Frozen encoders are left out, and a whole BERT runs without transformers."""
    out = Precomputed(tmp_path / "precomputed")
    torch.manual_seed(0)
    vision = create_image_encoder("vit_tiny_patch16_224", "random", VIT, 32, image)
    save_encoder(vision, out.encoder("image"))
    save_encoder(create_text_encoder("bert", "random", BERT, text, 60), out.encoder("text"))
    for name in ("image", "text"):  # as the stage precompute does for descriptors
        out.write_statistics(name, np.random.default_rng(0).normal(size=(9, 24)))
    seal(out.folder)
    facts = architecture(modalities=["text", "image"], num_labels=5)
    save_members([Member(facts, shaken(assemble(facts, out, 1)))], tmp_path / "m", out)
    [whole], [light] = (load_members(tmp_path / "m", out, whole=w) for w in (True, False))
    assert torch.equal(scores(whole.network), scores(light.network))
    assert not light.network.training
    for name, frozen in (("image", image == 0), ("text", text == 0)):
        ours, theirs = light.network.encoders[name], whole.network.encoders[name]
        assert isinstance(ours, StoredDescriptors) == frozen and ours.width == theirs.width
        if frozen:
            inputs = (torch.randn(6, 24),)
        elif name == "image" or text == 1:  # activations, by the same class
            assert type(ours) is type(theirs)
            continue
        else:
            assert type(ours) is BertTextEncoder
            inputs = (torch.randint(1, 60, (6, 9)),)
        lengths = (torch.tensor([9, 1, 4, 9, 0, 2]),) if name == "text" else ()
        with torch.no_grad():
            assert torch.equal(ours(*inputs, *lengths), theirs(*inputs, *lengths))


def test_members_keep_their_order(tmp_path):
    members = [some_member(seed) for seed in range(12)]
    save_members(members, tmp_path / "m", NOWHERE)
    again = load_members(tmp_path / "m", NOWHERE)
    ours, theirs = ([scores(m.network).tolist() for m in group] for group in (again, members))
    assert ours == theirs


def test_a_failed_save_leaves_the_members_before(tmp_path):
    before = some_member(0)
    save_members([before], tmp_path / "m", NOWHERE)
    broken = some_member(1)
    broken.network.state_dict = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        save_members([some_member(2), broken], tmp_path / "m", NOWHERE)
    [again] = load_members(tmp_path / "m", NOWHERE)
    assert torch.equal(scores(again.network), scores(before.network))


def without(name: str):
    return lambda facts: {n: v for n, v in facts.items() if n != name}


@pytest.mark.parametrize(
    "change",
    [
        without("a_s"),  # as before the variants were settings
        without("dim"),
        lambda facts: facts | {"classifiers": None},  # a setting of another version
        lambda facts: facts | {"dim": 16},
        lambda facts: facts | {"a_c": "concat"},
        lambda facts: facts | {"num_labels": 6},
        lambda facts: [],
    ],
    ids=["no A_S", "no D", "unknown setting", "other D", "other A_C", "other L", "a list"],
)
def test_a_model_json_of_another_version_is_one_sentence(change, tmp_path):
    save_members([some_member()], tmp_path / "m", NOWHERE)
    path = tmp_path / "m/member-0/model.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    sealed(tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"/m does not fit .*; run `dvc repro`$") as error:
        load_members(tmp_path / "m", NOWHERE)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("content", ["", "{", '{"dim": 8'])
def test_a_broken_model_json_is_one_sentence(content, tmp_path):
    save_members([some_member()], tmp_path / "m", NOWHERE)
    (tmp_path / "m/member-0/model.json").write_text(content)
    with pytest.raises(ArtifactError, match="model.json is damaged"):
        load_members(tmp_path / "m", NOWHERE)
    sealed(tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"model.json is not JSON .*run `dvc repro`$"):
        load_members(tmp_path / "m", NOWHERE)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08" * 200])
def test_broken_weights_are_one_sentence(content, tmp_path):
    save_members([some_member()], tmp_path / "m", NOWHERE)
    path = tmp_path / "m/member-0/model.safetensors"
    path.write_bytes(content)
    sealed(tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"cannot be read .*run `dvc repro`$") as error:
        load_members(tmp_path / "m", NOWHERE)
    assert "\n" not in str(error.value)


def test_a_folder_without_members_is_one_sentence(tmp_path):
    made_from = {"data/precomputed": contents_of(NOWHERE.folder).id}
    seal(tmp_path, made_from)
    with pytest.raises(ArtifactError, match="has no member-0; run `dvc repro`"):
        load_members(tmp_path, NOWHERE)


# Fresh networks


def test_a_new_member_is_decided_by_its_seed(precomputed):
    one, same, other = (
        weights_of(new_member(architecture(**EVERY), precomputed, seed).network)
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[n], same[n]) for n in one)
    for part in ("encoders.text", "encoders.image", "encoders.lexical", "projections.text"):
        assert any(not torch.equal(one[n], other[n]) for n in one if n.startswith(part)), part


def test_the_image_gate_starts_at_its_setting(precomputed):
    network = new_member(architecture(**EVERY), precomputed, 0).network
    assert network.pooling.gates.tolist() == [0.0, -1.0, 0.0]  # text, image, lexical


def test_only_frozen_descriptors_are_standardised(precomputed):
    """The statistics of what trains would go stale: they are not even read."""
    network = new_member(architecture(standardise=True, **EVERY), precomputed, 0).network
    for name in ("text", "image"):
        assert not network.projections[name].mean.any()
        assert (network.projections[name].scale == 1).all()


def test_frozen_descriptors_are_standardised_by_train_statistics(tmp_path):
    out = Precomputed(tmp_path)
    save_encoder(create_text_encoder("bert", "random", BERT, 0, 60), out.encoder("text"))
    rows = np.random.default_rng(0).normal(2.0, 3.0, (50, 24)).astype(np.float32)
    out.write_statistics("text", rows)
    seal(tmp_path)
    settings = dict(modalities=["text"], dim=24, projection="maxpool")
    for standardise in (True, False):
        facts = architecture(standardise=standardise, **settings)
        projection = new_member(facts, out, 0).network.projections["text"].eval()
        expected = (rows - rows.mean(0)) / rows.std(0) if standardise else rows
        assert np.allclose(projection(torch.from_numpy(rows)), expected, atol=1e-5)


def test_transferred_members_load_with_their_new_parts(tmp_path):
    before = Member(architecture(heads=2), bare_mufin(heads=2))
    after = transferred(before, 5, "concat", 0.7, False)
    shaken(after.network).eval()
    save_members([after], tmp_path / "m", NOWHERE)
    [again] = load_members(tmp_path / "m", NOWHERE)
    assert again.architecture == architecture(heads=2, num_labels=5, a_c="concat", outer_norm=False)
    assert torch.equal(scores(again.network), scores(after.network))
