"""Reference rows, which need no network: most popular labels, nearest titles, title ridge."""

from __future__ import annotations

import numpy as np

from mufin.artifacts.curated import Split
from mufin.baselines.shared.popularity import popular
from mufin.baselines.shared.tfidf import nearest_datapoints_tfidf
from mufin.ranking.order import Ranking, top
from mufin.ranking.title_ridge import TitleRidge

NEIGHBOURS = 20  # train datapoints with the nearest titles, whose labels are predicted


def reference_rows(
    train: Split,
    split: Split,
    titles: np.ndarray,
    num_labels: int,
    ridge: TitleRidge | None,
    width: int,
) -> dict[str, Ranking]:
    """{row: ranking} of the datapoints of `split`; `titles` (P,) str are those of all products."""
    asked, known = titles[split.product].tolist(), titles[train.product].tolist()
    out = {
        "popular": popular(train.labels, num_labels, len(split), width, split.excluded),
        "tfidf_datapoints": nearest_datapoints_tfidf(
            known, train.labels, asked, num_labels, NEIGHBOURS, width, split.excluded
        ),
    }
    if ridge is not None:
        scores = ridge.scores(asked)
        ids = np.broadcast_to(np.arange(num_labels), scores.shape)
        out["ridge"] = top(ids, scores, split.excluded, width)
    return out
