"""One product page: milliseconds from a uid, and from a title and a picture, to its recommendations.

python -m benchmarks.query --out benchmarks/results/query.json        (after `dvc repro`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import torch
import typer

from benchmarks.timing import interleaved, spread, tell
from mufin import runtime
from mufin.params import load_params
from mufin.serving.recommender import Recommender


def main(
    home: Path = Path("."),
    queries: int = 200,
    k: int = 10,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """One query at a time, the recommender loaded."""
    torch.set_num_threads(runtime.workers())
    served = Recommender(load_params(home / "params.yaml"), home)
    rng = np.random.default_rng(0)
    uids = iter([served.uids[i] for i in rng.integers(len(served.uids), size=queries + 1)])
    picture = pq.read_table(home / "data/raw/images").slice(0, 1)["bytes"][0].as_py()
    seconds = interleaved(
        {"uid of the catalog": lambda: served.recommend([next(uids)], k)}, queries
    )
    seconds |= interleaved(
        {"title and picture": lambda: served.recommend_new([served.titles[0]], [[picture]], k)},
        max(queries // 10, 1),
    )
    tell(
        f"one query, k {k}, {len(served.index.products)} labels, {len(served.members)} members, {runtime.device()}",
        {name: spread(s) for name, s in seconds.items()},
        out,
    )


if __name__ == "__main__":
    typer.run(main)
