"""What a stage does and holds, in numbers: work, memory and files.

A stage is a sequence of phases. Its peak of memory is that of the phase that holds most; its time
is the sum over phases.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mufin.planning.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of work of a phase; what is 0 is not done."""

    what: str
    flop: float = 0.0  # on the device
    full: bool = False  # whether these are in float32 on a GPU too
    moved: float = 0.0  # bytes that the device reads and writes in its memory
    core_seconds: float = 0.0  # of one core
    one_core: bool = False  # whether only one core does it
    read: float = 0.0  # bytes from the disk
    written: float = 0.0  # bytes to the disk
    waited: float = 0.0  # seconds for hosts of pictures
    shared: bool = False  # whether processes share it; else each of them does all of it

    def times(self, machine: Machine, processes: int = 1) -> tuple[float, ...]:
        """Seconds of the device, its memory, the cores, the disk, and of waiting.

        Each of the `processes` has a GPU of its own; without one they share the cores. What they
        read is read from the disk once.
        """
        part = 1 / processes if self.shared else 1.0  # of each process
        device = part if machine.has_gpu else part * processes
        return (
            device * self.flop / machine.flop_per_second(self.full),
            device * self.moved / machine.moved_per_second,
            part * self.core_seconds * (1 if self.one_core else processes / machine.cores),
            (self.read + self.written) / machine.disk_per_second,
            self.waited,
        )


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that a phase holds at its peak."""

    what: str
    size: float
    setting: str = ""  # the setting that makes it smaller
    on_device: bool = False  # in the memory of the GPU, if there is one


@dataclass(frozen=True, slots=True)
class Phase:
    """Work that ends before the next phase begins, and what is in memory meanwhile.

    A kind of work takes the longest of its times. With `overlaps` device, cores and disk work for
    different kinds at the same time. What `held` lists is held by each of the processes of
    `Machine.processes`, if these are there (`in_processes`), and else by one.
    """

    what: str
    work: list[Work]
    held: list[Held]
    overlaps: bool = False
    in_processes: bool = False

    def processes(self, machine: Machine) -> int:
        return machine.processes if self.in_processes else 1

    def seconds(self, machine: Machine) -> float:
        times = [work.times(machine, self.processes(machine)) for work in self.work]
        if self.overlaps:
            return max(map(sum, zip(*times)), default=0.0)
        return sum(map(max, times))

    def size(self, machine: Machine, on_device: bool) -> float:
        """Bytes held by a GPU (`on_device`) or by the host, which holds all without a GPU."""
        return sum(held.size for held in self.held_by(machine, on_device))

    def held_by(self, machine: Machine, on_device: bool) -> list[Held]:
        """What a GPU holds, or the host for all processes."""
        held = [h for h in self.held if (h.on_device and machine.has_gpu) == on_device]
        count = 1 if on_device else self.processes(machine)
        return held if count == 1 else [replace(h, size=count * h.size) for h in held]


def in_processes(phases: list[Phase]) -> list[Phase]:
    """The phases, run by each process of `Machine.processes`."""
    return [replace(phase, in_processes=True) for phase in phases]


@dataclass(frozen=True, slots=True)
class Stage:
    """The cost of a stage of the pipeline."""

    name: str
    phases: list[Phase]
    files: dict[str, float] = field(default_factory=dict)  # artifact -> bytes that stay
    scratch: float = 0.0  # bytes on the disk while it runs, beside its files
    refused: str = ""  # why the stage refuses these sizes

    def total(self, name: str) -> float:
        """The sum of a field of `Work`."""
        return sum(getattr(work, name) for phase in self.phases for work in phase.work)

    @property
    def flop(self) -> float:
        return self.total("flop")

    @property
    def read(self) -> float:
        return self.total("read")

    @property
    def written(self) -> float:
        return self.total("written") + sum(self.files.values())

    def seconds(self, machine: Machine) -> float:
        files = sum(self.files.values()) / machine.disk_per_second
        return files + sum(phase.seconds(machine) for phase in self.phases)

    def peak(self, machine: Machine, on_device: bool) -> tuple[float, Phase | None]:
        """Bytes at the peak, by a GPU or by the host, and the phase."""
        largest = max(self.phases, key=lambda p: p.size(machine, on_device), default=None)
        return (largest.size(machine, on_device) if largest else 0.0), largest
