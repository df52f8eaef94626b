"""Workers of a cluster by its machines, and the sentences where there is none."""

from __future__ import annotations

import socket
import sys

import pytest

from mufin.cluster import engine
from mufin.cluster.engine import Engine, _engine, _Worker, connected, digest_of_code
from mufin.errors import MufinError

CPUS, GPUS = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    "machines, device, workers",
    [
        ([CPUS, CPUS], None, Engine(2, 8, False)),
        ([CPUS, {"CPU": 20.0}, {"memory": 1.0}], None, Engine(3, 8, False)),
        ([CPUS, GPUS, GPUS], None, Engine(8, 4, True)),  # the machine without a GPU waits
        ([CPUS, GPUS], "cpu", Engine(3, 8, False)),
        ([{"CPU": 2.0, "GPU": 4.0}], None, Engine(4, 1, True)),
    ],
)
def test_workers_are_equal_and_fill_the_machines(monkeypatch, machines, device, workers):
    monkeypatch.delenv("MUFIN_DEVICE", raising=False)
    if device:
        monkeypatch.setenv("MUFIN_DEVICE", device)
    assert _engine(machines) == workers


def test_a_cluster_without_cores_is_one_sentence():
    with pytest.raises(MufinError, match="no machine at MUFIN_RAY_ADDRESS has a core"):
        _engine([{"memory": 1.0}])


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MufinError, match=r"not installed; run `pip install 'ray\[data\]'`"):
        with connected("auto"):
            pass


def test_a_head_node_that_does_not_answer_is_one_sentence():
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(MufinError, match="no Ray cluster answers there; start one with"):
            with connected(f"127.0.0.1:{port}"):
                pass


def doubled(factor: int):
    if factor < 0:
        raise MufinError("the factor is negative; take another one")
    return lambda item: {"value": factor * item["value"]}


def test_an_error_of_a_worker_is_its_answer():
    own = digest_of_code()
    row = {"item": '{"value": 3}'}
    assert _Worker(doubled, {"factor": 2}, {}, own)(row) == {"answer": '{"value": 6}', "error": ""}
    assert "negative" in _Worker(doubled, {"factor": -1}, {}, own)(row)["error"]


def test_a_machine_with_other_code_is_refused(monkeypatch, tmp_path):
    own = digest_of_code()
    (tmp_path / "mufin").mkdir()
    (tmp_path / "mufin/other.py").write_text("changed")
    monkeypatch.setattr(engine.code, "ROOT", tmp_path)
    error = _Worker(doubled, {"factor": 2}, {}, own)({"item": '{"value": 3}'})["error"]
    assert "has other code of MUFIN" in error and "the same version" in error
