"""A Ray cluster on this machine: a head node without cores, and two workers with one core each."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mufin.code import ROOT

# A killed node is missed after 5 seconds, in place of 15
WATCHED = {"health_check_period_ms": 1000}


@dataclass
class TwoWorkers:
    """Nodes with a folder each for their temporary files, and a store that both see."""

    address: str
    store: Path
    temporary: list[Path]
    made: Any  # Ray's own object
    nodes: list

    def kill(self, number: int) -> None:
        self.nodes[number].kill_raylet()  # SIGKILL; its workers end with it

    def replace(self, number: int) -> None:
        """Starts another one in place of one that was killed."""
        path = str(self.temporary[number])
        self.nodes[number] = self.made.add_node(env_vars={"TMPDIR": path})

    @contextlib.contextmanager
    def with_gpus(self, cores: int, gpus: int) -> Iterator[None]:
        """One more machine, which only says that it has GPUs."""
        node = self.made.add_node(num_cpus=cores, num_gpus=gpus)
        try:
            yield
        finally:
            self.made.remove_node(node)

    def use(self, patch: pytest.MonkeyPatch, store: str | None = None) -> None:
        """Lets stages and commands of this process run on the cluster, with a store by its URI."""
        patch.setenv("MUFIN_RAY_ADDRESS", self.address)
        patch.setenv("MUFIN_RAY_STORE", store or self.store.as_uri())


@contextlib.contextmanager
def two_workers(folder: Path) -> Iterator[TwoWorkers]:
    """The cluster; the test is skipped where Ray Data is not installed."""
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    from ray.cluster_utils import Cluster

    session = tempfile.mkdtemp(prefix="ray-")  # short: names of sockets have at most 107 bytes
    atexit.register(shutil.rmtree, session, ignore_errors=True)  # agents end late, and still write
    store, temporary = folder / "store", [folder / "one", folder / "two"]
    for path in (store, *temporary):
        path.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("RAY_TMPDIR", session)
        (Path(session) / "ray").mkdir()
        head = {"num_cpus": 0, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head | {"_system_config": WATCHED})
        try:
            nodes = [made.add_node(env_vars={"TMPDIR": str(path)}) for path in temporary]
            made.wait_for_nodes()
            yield TwoWorkers(made.address, store, temporary, made, nodes)
        finally:
            made.shutdown()


def tells(folder: str, count: int) -> Callable[[dict], dict]:
    """Work that tells the environment of its process, when `count` processes are at work."""

    def work(item: dict) -> dict:
        Path(folder, str(os.getpid())).touch()
        for _ in range(600):
            if len(os.listdir(folder)) >= count:
                break
            time.sleep(0.1)
        names = ("CUDA_VISIBLE_DEVICES", "MUFIN_DEVICE", "MUFIN_WORKERS", "MUFIN_PRECISION")
        return {name: os.environ.get(name) for name in names} | {"process": os.getpid()}

    return work
