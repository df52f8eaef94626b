"""Trains one rival of Table 3 at one seed on the outfits of a folder, and writes its figures.

python -m compare.outfit_rival CSA-Net 0 --home compare/fitb/0
"""

from __future__ import annotations

from pathlib import Path

from compare.fitb import rival_file
from compare.study import tell_time
from mufin import runtime
from mufin.artifacts.files import write_json
from mufin.baselines.outfits.loading import outfit_task
from mufin.baselines.outfits.table import ROWS
from mufin.baselines.outfits.training import Budget
from mufin.errors import MufinError
from mufin.evaluation.outfits import accuracy, separation
from mufin.params import load_params


def main(name: str, seed: int, home: runtime.Home = Path(".")) -> None:
    """Train a rival, and publish its figures on test; a rival that fails costs its row only."""
    if name not in ROWS:
        raise MufinError(f"{name} is no rival of Table 3; there are {', '.join(ROWS)}")
    try:
        figures = _figures(name, seed, home)
    except Exception as error:
        if runtime.refused(error):
            raise
        figures = {"failed": f"{type(error).__name__}: {error}"}
    write_json(figures, rival_file(home, name, seed))
    tell_time(name, seed)


def _figures(name: str, seed: int, home: Path) -> dict:
    # Pictures of the size that MUFIN reads
    task = outfit_task(home, load_params(home / "params.yaml").encoder.image.size)
    outfits = task.outfits
    valid, test = outfits.questions.of("valid"), outfits.questions.of("test")
    scorer = ROWS[name].fit(task.items, outfits.sets.of("train").items, valid, seed, Budget())
    sets = outfits.compatibility.of("test")
    figures = {}
    for metric, (value, error) in {
        "accuracy": accuracy(scorer.fill(test), test),
        "AUC": separation(scorer.compatibility(sets.items), sets),
    }.items():
        figures |= {metric: round(100 * value, 4), f"{metric}_error": round(100 * error, 4)}
    return figures


if __name__ == "__main__":
    runtime.run(main)
