"""The stage precompute on a small sample: equal to a slow loop, repeatable, from train alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mufin.artifacts import arrays
from mufin.artifacts.curated import read_labels, read_split
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.image_store import key_of
from mufin.corpus.pixels import decode
from mufin.corpus.tokens import load_tokenizer, terms_of
from mufin.errors import MufinError
from mufin.nn import picture_parts, text_parts
from mufin.nn.embedding import embed
from mufin.nn.encoded import encoders_held
from mufin.nn.frozen import to_int8
from mufin.nn.image_encoder import load_image_encoder
from mufin.nn.text_encoder import load_text_encoder
from mufin.nn.text_parts import FrozenPart
from mufin.params import load_params
from tests.support.artifacts import sealed
from tests.support.stages import (
    SIZE,
    TOKENS,
    beside,
    in_files,
    inside,
    made,
    new_network,
    pictures_of,
    products,
    run_stages,
    write_products,
)

KINDS = {"descriptors": 0, "activations": 1, "inputs": "all"}


def trains(what: int | str) -> dict:
    return {"encoder.image.trainable_blocks": what, "encoder.text.trainable_layers": what}


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    with inside(folder):
        run_stages(folder, "download", "curate")
    return folder


@pytest.fixture(scope="module")
def damaged(sample, tmp_path_factory) -> Path:
    """The sample with broken and lost pictures, and products without title, picture, or both."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(sample / "data", folder / "data")
    keys = sorted(
        set(pictures_of(sample))
        & {k for row in products(sample)["images"].to_pylist() for k in row}
    )
    whole = pictures_of(sample)
    unended = next(key for key in keys[40:] if whole[key].endswith(b"\xff\xd9"))
    moved = rewrite(
        folder,
        {
            unended: whole[unended][:-1],
            keys[3]: b"no picture",
            keys[8]: whole[keys[8]][:200],
            keys[20]: None,
            keys[21]: None,
            keys[30]: b"",
        },
    )
    table, keys = products(folder), [moved.get(key, key) for key in keys]
    titles, images = table["title"].to_pylist(), renamed(table["images"].to_pylist(), moved)
    titles[4] = titles[9] = titles[50] = ""
    titles[5:8] = ["red anchor mug", "blue kettle", "blue kettle, 2 pack"]
    images[4] = [keys[0]]
    images[5] = images[9] = images[50] = []
    images[6] = [keys[20]]  # its only picture is lost
    images[7] = [keys[3], keys[0], keys[20], keys[0], keys[1]]  # the others keep their order
    write_products(folder, titles, images)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def stored(request, damaged) -> tuple[str, Path]:
    """The stage's output for each kind of what is stored."""
    return request.param, made(damaged, request.param, **trains(KINDS[request.param]))


def rewrite(folder: Path, changes: dict[str, bytes | None]) -> dict[str, str]:
    """Gives some pictures of the image store other bytes; {old key: new key}.

    None takes the picture out. The products still name the old keys.
    """
    moved = {key: key_of(content) for key, content in changes.items() if content is not None}
    for path in (folder / "data/raw/images").glob("part-*.parquet"):
        table = pq.read_table(path)
        rows = [
            (moved.get(k, k), changes.get(k, b))
            for k, b in zip(table["key"].to_pylist(), table["bytes"].to_pylist())
        ]
        key, content = zip(*[row for row in rows if row[1] is not None])
        pq.write_table(
            pa.table({"key": key, "bytes": pa.array(content, pa.binary())}, schema=table.schema),
            path,
        )
    sealed(folder / "data/raw")
    return moved


def renamed(images: list[list[str]], moved: dict[str, str]) -> list[list[str]]:
    return [list(dict.fromkeys(moved.get(key, key) for key in keys)) for keys in images]


def known_products(folder: Path) -> set[int]:
    curated = folder / "data/curated"
    return set(read_split(curated / "train.parquet").product.tolist()) | set(
        read_labels(curated / "labels.parquet").tolist()
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


# What is stored


def test_stored_and_dropped_pictures_add_up(damaged, stored):
    manifest, store = json.loads((stored[1] / "manifest.json").read_text()), pictures_of(damaged)
    keys = {k for row in products(damaged)["images"].to_pylist() for k in row}
    outcomes = Counter(
        "not in the image store"
        if k not in store
        else out
        if isinstance(out := decode(store[k], SIZE), str)
        else "kept"
        for k in keys
    )
    assert (
        outcomes["not in the image store"] == 2
        and outcomes["not a picture"]
        and outcomes["empty"]
        and outcomes["corrupt or truncated"]
    )
    assert (
        manifest["image"]["count"] == outcomes.pop("kept")
        and manifest["image"]["dropped"] == outcomes
    )
    assert manifest["image"]["kind"] == manifest["text"]["kind"] == stored[0]
    assert manifest["products"] == products(damaged).num_rows
    assert manifest["text"]["titles"] == sum(
        t != "" for t in products(damaged)["title"].to_pylist()
    )
    assert (
        sum(len(np.load(stored[1] / name, mmap_mode="r")) for name in manifest["image"]["shards"])
        == manifest["image"]["count"]
    )


def test_only_what_the_image_encoder_reads_is_stored(stored):
    kind = "pixels" if stored[0] == "inputs" else "image_inputs"
    assert [p.name for p in stored[1].glob("*-*.npy")] == [f"{kind}-00000.npy"]
    assert not (stored[1].parents[1] / "scratch/precompute").exists() or not list(
        (stored[1].parents[1] / "scratch/precompute").iterdir()
    )


def test_all_that_is_stored_is_finite(stored):
    arrays = [np.load(p) for p in stored[1].glob("*.npy")]
    assert all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")


@pytest.mark.parametrize(
    "modalities",
    [["text", "image"], ["text", "lexical", "image"], ["image"], ["text"], ["lexical"]],
    ids="+".join,
)
def test_a_batch_gives_each_product_its_own_descriptors(damaged, stored, modalities):
    """Against a loop over the products, from titles and bytes anew."""
    kind, folder = stored
    table, store = products(damaged), pictures_of(damaged)
    titles, images = table["title"].to_pylist(), table["images"].to_pylist()
    tokenizer = load_tokenizer(str(folder / "encoders/text"))
    text, image = (
        load_text_encoder(folder / "encoders/text"),
        load_image_encoder(folder / "encoders/image"),
    )
    terms = {t: i for i, t in enumerate(json.loads((folder / "lexical_terms.json").read_text()))}
    rng = np.random.default_rng(0)
    asked = np.concatenate([[4, 5, 6, 7, 9, 50, 7], rng.integers(0, len(titles), 40)])
    batch = DescriptorStore(folder, modalities).batch(asked)
    assert batch.num_bags == len(asked) and batch.modality.shape == (len(asked), batch.width)
    for bag, product in enumerate(asked):
        expected = []
        if "text" in modalities:
            expected.append(0 if titles[product] else -1)
            mine = (batch.text_bag == bag).nonzero().flatten().tolist()
            assert len(mine) == bool(titles[product])
            if mine:
                ids = tokenizer(titles[product], truncation=True, max_length=TOKENS)["input_ids"]
                length = torch.tensor([len(ids)])
                assert int(batch.text_lengths[mine[0]]) == len(ids)
                row = (
                    torch.tensor([ids])
                    if kind == "inputs"
                    else text.frozen(torch.tensor([ids]), length)
                )
                near(
                    batch.text[mine[0]][: len(ids)]
                    if kind != "descriptors"
                    else batch.text[mine[0]],
                    row[0],
                    kind,
                )
        if "lexical" in modalities:
            mine = (batch.lexical_bag == bag).nonzero().flatten().tolist()
            ids = [terms[t] for t in terms_of(titles[product], 2) if t in terms]
            expected.append(2 if ids else -1)
            ends = [*batch.lexical_offsets.tolist(), len(batch.lexical_ids)]
            assert [batch.lexical_ids[ends[i] : ends[i + 1]].tolist() for i in mine] == [
                ids
            ] * bool(ids)
            assert batch.lexical_row == modalities.index("lexical")
        if "image" in modalities:
            arrays = [decode(store[k], SIZE) for k in images[product] if k in store]
            arrays = [torch.from_numpy(a) for a in arrays if not isinstance(a, str)]
            mine = (batch.image_bag == bag).nonzero().flatten()
            assert batch.image_row[mine].tolist() == list(
                range(len(expected), len(expected) + len(arrays))
            )
            expected += [1] * len(arrays)
            for i, a in zip(mine, arrays):
                near(batch.images[i], a if kind == "inputs" else image.frozen(a[None])[0], kind)
        assert batch.modality[bag].tolist() == expected + [-1] * (batch.width - len(expected))


def near(ours: torch.Tensor, theirs: torch.Tensor, kind: str) -> None:
    """Equal; activations are stored as float16, descriptors are computed in other batches."""
    assert ours.shape == theirs.shape
    assert torch.allclose(
        ours.float(),
        theirs.float(),
        atol={"inputs": 0, "activations": 4e-3, "descriptors": 1e-5}[kind],
    )


def test_products_without_descriptors_have_zero_vectors(damaged, stored):
    with inside(damaged, **trains(KINDS[stored[0]])):
        params = load_params()
        model = new_network(params, stored[1], 0).eval()
        store = DescriptorStore(stored[1], params.encoder.modalities)
        for asked in ([9, 50], [9], [], [4, 9, 5]):
            bag = model.bag(store.batch(np.array(asked, np.int64)))
            vectors = model.vector(bag)
            assert vectors.shape == (len(asked), 16) and torch.isfinite(vectors).all()
            for product, mask, vector in zip(asked, bag.mask, vectors):
                assert bool(mask.any()) == bool(vector.any()) == (product not in (9, 50))


def test_encoders_held_give_the_embeddings_of_encoders_that_run(damaged, stored):
    with inside(damaged, **trains(KINDS[stored[0]])):
        params = load_params()
        model = new_network(params, stored[1], 3)
        store = DescriptorStore(stored[1], params.encoder.modalities)
        encoders, every = dict(model.encoders), np.arange(store.num_products)
        device = torch.device("cpu")
        free = embed(model, store, every, device, torch.float32, 37)
        with encoders_held(model, store, device, torch.float32, 29) as held:
            assert not any(
                p.requires_grad for m in ("text", "image") for p in model.encoders[m].parameters()
            )
            fixed = embed(model, held, every, device, torch.float32, 50)
        again = embed(model, store, every, device, torch.float32, 37)
    assert np.array_equal(free.offsets, fixed.offsets) and np.array_equal(
        free.modality, fixed.modality
    )
    assert np.allclose(free.rows, fixed.rows, atol=1e-5) and np.allclose(
        free.vectors, fixed.vectors, atol=1e-5
    )
    assert np.linalg.norm(free.vectors, axis=1).max() == pytest.approx(1, abs=1e-5)
    assert dict(model.encoders) == encoders  # restored
    assert np.array_equal(again.rows, free.rows)


def test_two_runs_and_two_workers_give_equal_bytes(damaged, stored):
    again = made(damaged, "again", workers=2, **trains(KINDS[stored[0]]))
    first, second = contents(stored[1]), contents(again)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_several_shards_give_the_same_batches_as_one(damaged, stored, monkeypatch):
    monkeypatch.setattr(arrays, "SHARD_BYTES", 5000)
    parts = made(damaged, "parts", **trains(KINDS[stored[0]]))
    shards = json.loads((parts / "manifest.json").read_text())["image"]["shards"]
    whole, apart = (
        DescriptorStore(f, ["text", "image"]).batch(np.arange(150)) for f in (stored[1], parts)
    )
    assert len(shards) > 1
    assert torch.equal(whole.images, apart.images) and torch.equal(whole.image_bag, apart.image_bag)


def test_a_stage_that_ended_goes_on_after_its_last_whole_file(damaged, tmp_path, monkeypatch):
    home = in_files(damaged, tmp_path, 4)
    unbroken = made(home, "unbroken", **trains(1))
    ended, real, of_files = False, picture_parts.ShardWriter.close, []

    def close(self):
        nonlocal ended
        of_files.append(self.files[0])
        if len(of_files) == 3 and not ended:
            ended = True
            raise RuntimeError("the stage ends here")
        return real(self)

    monkeypatch.setattr(picture_parts.ShardWriter, "close", close)
    with pytest.raises(RuntimeError, match="ends here"):
        made(home, "ended", **trains(1))
    assert not (home / "ended/data/precomputed").exists()
    again = made(home, "ended", **trains(1))
    assert len(of_files) == 3 + 2  # the two files that were done are not read again
    assert contents(unbroken) == contents(again)
    assert not list((home / "ended/scratch/precompute").iterdir())


def test_titles_that_are_done_are_not_encoded_again(damaged, monkeypatch):
    unbroken = made(damaged, "titles-unbroken", **trains(1))
    real, read = FrozenPart.of, []
    monkeypatch.setattr(text_parts, "PART", 20 * TOKENS)

    def of(self, texts, rows):
        read.append(len(rows))
        if len(read) == 6:
            raise RuntimeError("the stage ends here")
        return real(self, texts, rows)

    monkeypatch.setattr(FrozenPart, "of", of)
    with pytest.raises(RuntimeError, match="ends here"):
        made(damaged, "titles-ended", **trains(1))
    again = made(damaged, "titles-ended", **trains(1))
    parts = text_parts.parts_of(np.sort(np.load(again / "token_lengths.npy")), 16)
    ends = np.cumsum([len(part) for part in parts])  # batches of the first parts
    assert len(read) == 6 + ends[-1] - ends[ends <= 5].max()
    assert contents(unbroken) == contents(again)


def test_files_of_the_store_change_no_row(damaged, stored, tmp_path):
    apart = made(in_files(damaged, tmp_path, 3), "apart", **trains(KINDS[stored[0]]))
    shards = json.loads((apart / "manifest.json").read_text())["image"]["shards"]
    assert len(shards) == 3
    one, several = (
        np.concatenate([np.load(path) for path in sorted(folder.glob("*-0000?.npy"))])
        for folder in (stored[1], apart)
    )
    assert np.allclose(one, several, rtol=2e-3, atol=2e-3)  # batches end with their file
    for name in ("image_rows.npy", "image_offsets.npy"):
        assert (stored[1] / name).read_bytes() == (apart / name).read_bytes()
    facts = [
        json.loads((f.parents[1] / "metrics/precompute.json").read_text())
        for f in (stored[1], apart)
    ]
    assert facts[0] == facts[1]


def test_int8_activations_give_nearly_the_same_descriptors(damaged):
    half = made(damaged, "half", **trains(1))
    small = made(damaged, "int8", **trains(1), **{"encoder.image.activations": "int8"})
    one, other = (np.load(f / "image_inputs-00000.npy") for f in (half, small))
    assert other.dtype == np.int8 and other.shape == (*one.shape[:2], one.shape[2] + 4)
    encoder = load_image_encoder(small / "encoders/image").eval()
    with torch.no_grad():
        cosine = torch.cosine_similarity(*(encoder(torch.from_numpy(a)) for a in (one, other)))
    assert cosine.min() > 0.999
    facts = json.loads((small.parents[1] / "metrics/precompute.json").read_text())["image"]
    assert facts["least_cosine_of_int8"] == pytest.approx(float(cosine.min()), abs=2e-5)


def test_int8_is_refused_where_it_changes_a_descriptor(damaged, monkeypatch):
    monkeypatch.setattr("mufin.nn.picture_parts.to_int8", lambda a: to_int8(np.sign(a)))
    with pytest.raises(MufinError, match="activations is int8, but .* set it to float16"):
        made(damaged, "refused", **trains(1), **{"encoder.image.activations": "int8"})


def test_what_was_mended_or_dropped_is_counted_with_a_product(damaged, stored):
    facts = json.loads((stored[1].parents[1] / "metrics/precompute.json").read_text())["image"]
    store, images = (
        pictures_of(damaged),
        dict(zip(products(damaged)["uid"].to_pylist(), products(damaged)["images"].to_pylist())),
    )
    assert facts["noted"] == {"without end marker": 1}
    assert set(facts["examples"]) == set(facts["dropped"]) | set(facts["noted"])
    for what, uid in facts["examples"].items():
        outcomes: set = set()
        for key in images[uid.strip("'")]:
            out = decode(store[key], SIZE, outcomes) if key in store else "not in the image store"
            outcomes |= {out} if isinstance(out, str) else set()
        assert what in outcomes


# From train alone


def test_statistics_and_vocabularies_come_from_known_products_alone(sample, tmp_path):
    shutil.copytree(sample / "data", tmp_path / "data")
    known, table = known_products(sample), products(sample)
    titles, images = table["title"].to_pylist(), table["images"].to_pylist()
    seen = {k for p in known for k in images[p]}
    test = read_split(sample / "data/curated/test.parquet").product.tolist()
    others = [p for p in test if p not in known and titles[p] and set(images[p]) - seen]
    before = made(tmp_path, "before", **trains(0))
    lent = pictures_of(sample)[next(k for p in others[::-1] for k in images[p])]
    moved: dict[str, str] = {}
    for p in others[:5]:
        titles[p] = "zebra " + titles[p] + " quixotic quixotic gadget"
        moved |= rewrite(tmp_path, {k: lent for k in images[p] if k not in seen})
    write_products(tmp_path, titles, renamed(images, moved))
    after = made(tmp_path, "after", **trains(0))
    for name in ("text_mean", "text_std", "image_mean", "image_std"):
        assert np.allclose(
            np.load(before / f"{name}.npy"), np.load(after / f"{name}.npy"), rtol=0, atol=1e-6
        )
    for name in (
        "lexical_terms.json",
        "encoders/text/tokenizer.json",
        "encoders/text/weights.safetensors",
    ):
        assert (before / name).read_bytes() == (after / name).read_bytes()
    assert not np.allclose(
        np.load(before / "text_inputs.npy")[others[0]],
        np.load(after / "text_inputs.npy")[others[0]],
    )
    one, two = (
        DescriptorStore(f, ["image"]).batch(np.array(others[:5])).images for f in (before, after)
    )
    assert one.shape != two.shape or not torch.allclose(one, two)


def test_statistics_are_those_of_a_slow_loop(damaged):
    folder = made(damaged, "slow", **trains(0))
    known, store = sorted(known_products(damaged)), DescriptorStore(folder, ["text", "image"])
    text = np.stack([store.text.take(np.array([p]))[0] for p in known if store.lengths[p]])
    pictures = sorted({row for p in known for row in store.image_lists[p].tolist()})
    image = np.stack([store.images.take(np.array([row]))[0] for row in pictures])
    for name, values in (("text", text), ("image", image)):
        assert np.allclose(np.load(folder / f"{name}_mean.npy"), values.mean(0), atol=1e-5)
        assert np.allclose(np.load(folder / f"{name}_std.npy"), values.std(0), atol=1e-5)


# Errors


def test_pictures_that_all_fail_are_one_sentence(sample, tmp_path):
    shutil.copytree(sample / "data", tmp_path / "data")
    moved = rewrite(tmp_path, dict.fromkeys(pictures_of(sample), b"<html>"))
    table = products(sample)
    images = renamed(table["images"].to_pylist(), moved)
    write_products(tmp_path, table["title"].to_pylist(), images)
    earlier = beside(tmp_path, "home") / "data/precomputed"
    earlier.mkdir()
    (earlier / "old").write_text("old")
    before = contents(sealed(earlier))
    with pytest.raises(
        MufinError, match=r"none of the \d+ pictures could be decoded .*encoder.modalities"
    ):
        made(tmp_path, "home")
    assert contents(earlier) == before and not (tmp_path / "home/metrics").exists()


@pytest.mark.parametrize("what", [0, "all"])
def test_no_title_among_train_products_is_one_sentence(sample, what, tmp_path):
    shutil.copytree(sample / "data", tmp_path / "data")
    write_products(
        tmp_path, [""] * products(sample).num_rows, products(sample)["images"].to_pylist()
    )
    with pytest.raises(
        MufinError, match="no train product has a title; take text out of encoder.modalities"
    ):
        made(tmp_path, "home", **trains(what))


def test_a_missing_modality_names_the_remedy(damaged):
    folder = made(damaged, "titles", **{"encoder.modalities": ["text"]})
    assert not list(folder.glob("pixels-*")) and not (folder / "encoders/image").exists()
    with pytest.raises(MufinError, match=r"made without \['image'\]; run `dvc repro precompute`"):
        DescriptorStore(folder, ["text", "image"])
