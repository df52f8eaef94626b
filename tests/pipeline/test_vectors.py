"""Vectors of images in place of images: from a released data set through all stages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mufin import switching
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.image_vectors import StoredVectors, rows_of
from mufin.errors import MufinError
from mufin.params import load_params
from mufin.ragged import Lists
from mufin.reporting.showcase import write_showcase
from mufin.serving.recommender import Recommender
from pipeline import download
from tests.support import lf_release
from tests.support.stages import inside, products, run_stages

LEARN = {
    "download.source": "lf-amazontitles",
    "encoder.dim": 32,
    "encoder.image.kind": "vectors",
    "pretrain.epochs": 8,
    "pretrain.batch_size": 32,
    "finetune.epochs": 4,
    "finetune.batch_size": 64,
    "curate.valid": 0.0,
}


def settings(home: Path, given: tuple[str, str], **more) -> dict:
    places = {
        "download.location": str(home),
        "download.image_vectors.location": given[0],
        "download.image_vectors.ids": given[1],
    }
    return LEARN | places | more


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[Path]:
    """All stages with vectors by row, as ViXML publishes them."""
    folder = tmp_path_factory.mktemp("vectors")
    release = lf_release.release(folder / "release")
    given = lf_release.write_by_row(release)
    with inside(folder, **settings(release, given, **{"encoder.modalities": ["text", "image"]})):
        run_stages(folder)
        yield folder


def precision(home: Path) -> float:
    return json.loads((home / "metrics/evaluate.json").read_text())["test"]["P@1"]


def test_only_with_vectors_are_the_answers_right(finished, tmp_path):
    release = finished / "release"
    given = lf_release.write_by_id(release)
    titles = {"encoder.modalities": ["text"], "encoder.image.kind": "timm"}
    with inside(tmp_path, **settings(release, given, **titles)):
        run_stages(tmp_path)
    assert precision(finished) > 90 and precision(tmp_path) < 40


def test_each_product_has_its_own_vectors_to_the_end(finished):
    """From the files to what the networks read, through download, curate and precompute."""
    vectors = lf_release.vectors()
    of_uid: dict[str, list[np.ndarray]] = {}
    for short in ("trn", "tst", "lbl"):
        for row, vector in enumerate(vectors[short]):
            if row != 3:
                pair = [vector, vector + np.float16(0.01)]
                of_uid.setdefault(lf_release.uid(short, row), pair)
    stored = Precomputed(finished / "data/precomputed")
    rows, shards = stored.image_rows(), stored.image_shards()
    assert len(shards) == 1 and shards[0].dtype == np.float32
    for product, uid in enumerate(products(finished)["uid"].to_pylist()):
        expected = [vector.astype(np.float32).tolist() for vector in of_uid.get(uid, [])]
        assert shards[0][rows[product]].tolist() == expected
    known = np.unique(np.concatenate([read("train")["product"], read("labels")["product"]]))
    descriptors = shards[0][np.unique(rows.take(known).values)].astype(np.float64)
    mean, std = stored.statistics("image")
    np.testing.assert_allclose(mean, descriptors.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, descriptors.std(0), rtol=1e-5)


def read(name: str) -> pl.DataFrame:
    return pl.read_parquet(f"data/curated/{name}.parquet")


def test_a_new_image_is_refused_and_a_new_title_is_answered(finished):
    served = Recommender.load(finished)
    assert len(served.recommend(title="a thing", k=3)) == 3
    with pytest.raises(MufinError, match="E_V is not available: .* ask by title alone"):
        served.recommend(title="a thing", images=[b"an image"], k=3)
    assert len(served.recommend("tst00003", k=3)) == 3  # it has no vector


def test_curate_and_precompute_read_data_raw_alone(finished, tmp_path):
    """The files of the vectors may be gone after download."""
    for part in ("raw", "curated"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / part).symlink_to(finished / "data" / part)
    given = {"encoder.modalities": ["image"], "encoder.image.kind": "vectors"}
    gone = {"download.image_vectors.location": "gone", "download.image_vectors.ids": "gone"}
    with inside(tmp_path, **LEARN | given | gone | {"download.location": "gone"}):
        run_stages(tmp_path, "precompute", "precompute")
    both = (Precomputed(home / "data/precomputed") for home in (finished, tmp_path))
    one, other = (of.image_shards()[0] for of in both)
    assert np.array_equal(one, other)


# Settings


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"encoder.image.kind": "timm"},
            "encoder.image.kind is 'timm'; with download.image_vectors.location, .* be vectors",
        ),
        (
            {"download.image_vectors.location": None, "download.image_vectors.ids": None},
            "download.image_vectors.location is None; with encoder.image.kind: vectors it must be",
        ),
        (
            {"download.image_vectors.ids": None},
            "download.image_vectors is 'v.npy'; location and ids belong together",
        ),
        (
            {"download.source": "sample"},
            "download.image_vectors.location is 'v.npy'; the sample has images of its own",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(tmp_path, changes, message):
    more = settings(tmp_path, ("v.npy", "i.txt")) | {"encoder.modalities": ["image"]} | changes
    with inside(tmp_path, **more):
        with pytest.raises(MufinError, match=message):
            load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("blocks", [0, 1, "all"])
def test_settings_of_pixels_do_not_matter_for_vectors(tmp_path, blocks):
    more = {"encoder.modalities": ["image"], "encoder.image.trainable_blocks": blocks}
    with inside(tmp_path, **settings(tmp_path, ("v.npy", "i.txt"), **more)):
        assert load_params(tmp_path / "params.yaml").encoder.image.kind == "vectors"


def test_a_catalog_without_vectors_is_refused_by_precompute(finished, tmp_path):
    """As where data/raw is of an earlier run."""
    home = tmp_path / "home"
    for part in ("raw", "curated"):
        (home / "data").mkdir(parents=True, exist_ok=True)
        (home / "data" / part).symlink_to(tmp_path / "data" / part)
    with inside(tmp_path, **{"download.sample.products": 60, "encoder.modalities": ["image"]}):
        run_stages(tmp_path, "download", "curate")
    places = settings(tmp_path, ("v.npy", "i.txt"))
    with inside(home, **places | {"encoder.modalities": ["image"]}):
        with pytest.raises(MufinError, match="kind is vectors, but data/raw has none; set"):
            run_stages(home, "precompute", "precompute")


def test_use_keeps_vectors_and_their_encoder(tmp_path):
    given = {"encoder.modalities": ["image"], "encoder.image.kind": "vectors"}
    with inside(tmp_path, **settings(tmp_path, ("v.npy", "i.txt"), **given)):
        path = tmp_path / "params.yaml"
        for profile in ("paper", "sample"):
            list(switching.use(profile, path, False, False))
            params = load_params(path)
            assert params.download.image_vectors.location == "v.npy"
            assert params.encoder.image.kind == "vectors"
        list(switching.use("paper", path, True, False))
        assert load_params(path).encoder.image.kind == "timm"


def test_a_showcase_without_images_is_drawn(finished, tmp_path):
    assert "tst" in write_showcase(finished, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


# Other sources


def test_a_catalog_of_ones_own_takes_vectors_too(tmp_path, capsys):
    rows = [
        {"id": f"p{i}", "title": "", "images": ["gone.jpg"], "related": [f"p{i ^ 1}", "p0"]}
        for i in range(40)
    ]
    (tmp_path / "catalog.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    vectors = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float16)
    vectors[7] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    owners = {f"p{i}": [2 * i, 2 * i + 1] for i in range(39)} | {"P1": 88}
    (tmp_path / "ids.json").write_text(json.dumps(owners))
    given = (str(tmp_path / "v.npy"), str(tmp_path / "ids.json"))
    more = {
        "download.source": "catalog",
        "download.columns.id": "id",
        "download.columns.title": "title",
        "download.columns.images": "images",
        "download.columns.related": "related",
        "download.max_images": 1,
        "curate.split": "warm",
        "encoder.modalities": ["image"],
    }
    with inside(tmp_path, **settings(tmp_path / "catalog.jsonl", given, **more)):
        run_stages(tmp_path, "download", "pretrain")
        facts = json.loads(Path("metrics/download.json").read_text())
    assert facts["references"] == 39 and facts["pictures"] == 39
    notes = {what: of["count"] for what, of in facts["notes"].items() if "column" not in what}
    assert notes == {
        "products without an image vector": 1,
        "ids of image vectors that are no product": 1,
    }
    said = capsys.readouterr().err
    assert re.search("ids of image vectors that are no product: 1, such as 'P1'", said)
    uids = products(tmp_path)["uid"].to_pylist()
    assert "p39" not in uids and len(uids) == 39  # it has neither a title nor a vector
    keys = Lists.of_column(products(tmp_path)["images"])
    stored = StoredVectors(tmp_path / "data/raw")
    held = np.concatenate(list(stored.batches(rows_of(keys.values))))
    assert np.array_equal(held, vectors[:78:2])
    assert not list((tmp_path / "scratch").glob("download/*"))


def test_a_vector_that_is_not_finite_is_a_failed_image(tmp_path):
    release = lf_release.release(tmp_path / "release")
    given = lf_release.write_by_id(release)
    vectors = np.load(given[0])
    vectors[5, 0] = np.inf
    np.save(given[0], vectors)
    more = {"encoder.modalities": ["image"]}
    with inside(tmp_path, **settings(release, given, **more)):
        download.main(tmp_path)
        facts = json.loads(Path("metrics/download.json").read_text())
        assert facts["failed"] == {"numbers that are not finite": 1}
    with inside(tmp_path, **settings(release, given, **more | {"download.max_failed": 0.0})):
        with pytest.raises(
            MufinError, match="1 of .*numbers that are not finite: 1, such as row 5"
        ):
            download.main(tmp_path)
