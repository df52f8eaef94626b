"""What equal bytes cost: seconds of the two training stages with MUFIN_DETERMINISTIC=1 and 0.

MUFIN_WORKERS=2 python -m benchmarks.determinism --home . --epochs 10 --repeats 3

`home` is a folder in which all stages have run. Its data are read, and nothing in it is changed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.timing import tell
from compare.variant import changed
from mufin import devices, runtime
from mufin.artifacts.files import read_json
from pipeline import finetune, pretrain

READ = ("data/curated", "data/precomputed", "data/shortlists", "models/transfer")


def main(
    home: Path = Path("."),
    epochs: int = 10,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Train both modules with and without the setting, in turns, so that a busy machine slows both.

    The first pair of runs does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in READ:
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).symlink_to((home / name).resolve())
        settings = {"pretrain.epochs": epochs, "finetune.epochs": epochs}
        (work / "params.yaml").write_text(changed(home / "params.yaml", settings))
        os.environ["MUFIN_SCRATCH"] = str(work / "scratch")
        rows = {stage.__name__: _seconds(stage, work, repeats) for stage in (pretrain, finetune)}
    threads = f"{runtime.workers()} thread{'s' * (runtime.workers() > 1)}"
    tell(f"seconds of {epochs} epochs, on {devices.device()}, {threads}", rows, out)


def _seconds(stage, work: Path, repeats: int) -> dict[str, float]:
    """The least seconds of `stage` with and without deterministic algorithms, and their ratio."""
    seconds: dict[str, list[float]] = {"0": [], "1": []}
    costs = work / f"metrics/runtime/{stage.__name__.rpartition('.')[2]}.json"
    for turn in range(repeats + 1):
        for value in seconds:
            os.environ["MUFIN_DETERMINISTIC"] = value
            stage.main(work)
            if turn:
                seconds[value].append(read_json(costs)["seconds"])
    without, with_it = min(seconds["0"]), min(seconds["1"])
    return {"without": without, "with": with_it, "ratio": with_it / without}


if __name__ == "__main__":
    typer.run(main)
