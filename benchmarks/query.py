"""Milliseconds per query: recommendations by uid, and by a title and a picture.

python -m benchmarks.query --out benchmarks/results/query.json        (after `dvc repro`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import typer

from benchmarks.timing import interleaved, spread, tell
from mufin import devices
from mufin.params import load_params
from mufin.serving.recommender import Recommender


def main(
    home: Path = Path("."),
    queries: int = 200,
    k: int = 10,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """One query at a time; the recommender is loaded before."""
    recommender = Recommender(load_params(home / "params.yaml"), home)
    every = recommender.uids
    rng = np.random.default_rng(0)
    uids = iter([every[i] for i in rng.integers(len(every), size=queries + 1)])
    picture = pq.read_table(home / "data/raw/images").slice(0, 1)["bytes"][0].as_py()
    seconds = interleaved(
        {"uid of the catalog": lambda: recommender.recommend([next(uids)], k)}, queries
    )
    title = recommender.titles[0]
    seconds |= interleaved(
        {"title and picture": lambda: recommender.recommend_new([title], [[picture]], k)},
        max(queries // 10, 1),
    )
    predictor = recommender.predictor
    tell(
        f"one query, k {k}, {len(predictor.index)} labels, {len(predictor.networks)} members, "
        f"{devices.device()}",
        {name: spread(s) for name, s in seconds.items()},
        out,
    )


if __name__ == "__main__":
    typer.run(main)
