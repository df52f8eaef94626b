"""Training curves as CSV, which `dvc plots` draws."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.artifacts import publish


def write_curve(members: list[list[dict[str, float]]], path: Path) -> None:
    """One row an epoch: epoch, then loss and the figures on valid (if any), means over members; no times, so reruns compare."""
    steady = [name for name in members[0][0] if name == "loss" or name.startswith("valid_")]
    with publish(path) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *steady])
        for rows in zip(*members):
            writer.writerow([rows[0]["epoch"], *(sum(row[name] for row in rows) / len(rows) for name in steady)])
