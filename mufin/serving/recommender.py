"""The trained recommender: answers for products in the catalog and for new products."""

from __future__ import annotations

import difflib
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np

from mufin import devices
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import MufinError
from mufin.params import Params
from mufin.ragged import Lists
from mufin.ranking.mix import rank
from mufin.ranking.mix_file import load_mix
from mufin.ranking.trained import load_predictor
from mufin.serving.new_products import NewProductEncoders, load_encoders, new_product_store

CHUNK = 4096  # products scored at once


class Recommender:
    """Loads what `dvc repro` made in the folder `home` and answers with uids, titles and scores.

    Scores are mixed by `models/mix.json`, which the stage evaluate wrote. Raises ArtifactError if a
    file is not as it was written, or if the files are of different runs.
    """

    def __init__(self, params: Params, home: Path = Path(".")):
        self.params, self.precomputed = params, Precomputed(home / "data/precomputed")
        products = read_table(home / "data/curated/products.parquet", "products")
        self.uids: list[str] = products["uid"].to_pylist()
        self.titles: list[str] = products["title"].to_pylist()
        self.row_of = {uid: row for row, uid in enumerate(self.uids)}
        device, precision = devices.device(), devices.precision()
        self.predictor = load_predictor(home, params.encoder.modalities, device, precision)
        self.mix = load_mix(home / "models/mix.json", home / "models/index")

    @cached_property
    def encoders(self) -> NewProductEncoders:
        """The encoders for new products, loaded at the first question about one."""
        return load_encoders(
            self.precomputed, self.params.encoder.modalities, self.predictor.device
        )

    def recommend(self, uids: list[str], k: int = 10) -> list[list[dict]]:
        """The k best labels of each product in the catalog, never the product itself.

        Each is {"uid", "title", "score"}, best first. A product without a descriptor gets none,
        as no score of it would mean anything. Raises MufinError for an unknown uid.
        """
        rows = np.array([self._row(uid) for uid in uids], np.int64)
        out: list[list[dict]] = []
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            own = self.predictor.index.labels_of(part)
            out += self._best(self.predictor.store, part, [self.titles[r] for r in part], k, own)
        return out

    def recommend_new(
        self, titles: list[str], pictures: list[list[bytes]], k: int = 10
    ) -> list[list[dict]]:
        """The k best labels of new products, as `recommend` returns them.

        A product has a title ('' for none) and encoded pictures, such as the bytes of JPEG files.
        Raises MufinError for a broken picture.
        """
        with tempfile.TemporaryDirectory() as folder:
            store = new_product_store(
                titles, pictures, self.encoders, self.params.encoder, Path(folder)
            )
            return self._best(store, np.arange(len(titles)), titles, k, None)

    def _row(self, uid: str) -> int:
        if uid not in self.row_of:
            near = difflib.get_close_matches(uid, self.uids, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise MufinError(f"{uid} is not a product of the catalog{hint}")
        return self.row_of[uid]

    def _best(
        self,
        store: DescriptorStore,
        rows: np.ndarray,
        titles: list[str],
        k: int,
        excluded: Lists | None,
    ) -> list[list[dict]]:
        e, predictor = self.params.evaluate, self.predictor
        wide = len(predictor.index) if e.candidates == "all" else max(e.shortlist, k)
        datapoints = predictor.embed(rows, store=store)
        known = rows if store is predictor.store else None  # others are no products of train
        candidates = predictor.candidates(datapoints, wide, excluded, titles, known)
        candidates = candidates.only(datapoints[0].sizes > 0)
        ranking = rank(candidates, self.mix, excluded, predictor.index.log_frequency, k)
        return [self._answers(labels, scores) for labels, scores in zip(*ranking)]

    def _answers(self, labels: np.ndarray, scores: np.ndarray) -> list[dict]:
        """The answers for one product; labels below 0 are none."""
        return [self._answer(*pair) for pair in zip(labels, scores) if pair[0] >= 0]

    def _answer(self, label: int, score: float) -> dict:
        product = self.predictor.index.products[label]
        return {
            "uid": self.uids[product],
            "title": self.titles[product],
            "score": round(float(score), 4),
        }
