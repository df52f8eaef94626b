"""Training curves as CSV files that grow while a stage trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mufin.artifacts.files import write_csv

Curve = list[dict[str, float]]  # one row per epoch, as `loop.train` returns it
OF_RUN = ("epoch", "part", "seconds", "steps_per_second")  # not learnt, or not a mean over members


class CurveFile:
    """The training curve of all members of a stage in one CSV file with a row per epoch.

    The columns are epoch, loss and what the job's `end_epoch` returns. Each is the mean over the
    members that have finished the epoch. The file holds no times, so a resumed run leaves the same
    file as an uninterrupted one. `writes` says whether this process writes it; under torchrun only
    the first does.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes
        self.members: list[Curve] = []

    def member(self) -> Callable[[Curve], None]:
        """A function for the next member, to be called with its curve after each epoch."""
        number = len(self.members)
        self.members.append([])

        def on_epoch(curve: Curve) -> None:
            self.members[number] = list(curve)
            if self.writes:
                self._write()

        return on_epoch

    def worked(self, items: int) -> int:
        """The items that this process has processed, with `items` per epoch.

        Those that a run before the last checkpoint processed do not count.
        """
        return round(sum(items * row["part"] for curve in self.members for row in curve))

    def last_loss(self) -> float:
        """The loss of the last member in its last epoch."""
        return self.members[-1][-1]["loss"]

    def _write(self) -> None:
        begun = [curve for curve in self.members if curve]
        columns = [name for name in begun[0][0] if name not in OF_RUN]
        rows = []
        for number in range(max(map(len, begun))):
            finished = [curve[number] for curve in begun if len(curve) > number]
            means = (sum(row[name] for row in finished) / len(finished) for name in columns)
            rows.append([finished[0]["epoch"], *means])
        write_csv(["epoch", *columns], rows, self.path)
