"""Training curves as CSV, which `dvc plots` draws."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.artifacts import publish

STEADY = ("epoch", "member", "loss")      # what a rerun repeats; wall times go to the metrics


def write_curve(members: list[list[dict[str, float]]], path: Path) -> None:
    """One row an epoch and member: epoch, member, loss and the figures on valid, if any; no times, so reruns compare."""
    rows = [{"member": m, **{k: v for k, v in row.items() if k in STEADY or k.startswith("valid_")}}
            for m, rows in enumerate(members) for row in rows]
    with publish(path) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(k for row in rows for k in row)))
        writer.writeheader()
        writer.writerows(rows)
