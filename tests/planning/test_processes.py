"""A plan with MUFIN_PROCESSES: shared work takes a part of the hours, and memory counts for all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mufin.planning.network import network_of
from mufin.planning.plan import stages_of
from mufin.planning.run import Run
from mufin.planning.sizes import sizes_of
from mufin.planning.work import Held, Phase, Stage, Work
from mufin.profiles import read_profile
from tests.planning.test_files import SMALL_MACHINE

GB = 1e9
IN_PROCESSES = {"pretrain", "retrieve", "finetune", "index", "evaluate"}


@pytest.fixture(scope="module")
def both() -> tuple[Run, dict[str, Stage], dict[str, Stage]]:
    """A run of the paper's data set on GPUs, and its stages in one process and in two."""
    params = read_profile("mm-amazontitles-300k")
    sizes = sizes_of(params, {}, {}, None)
    run = Run(params, sizes, network_of(params, sizes), replace(SMALL_MACHINE, gpu=24 * GB))
    two = replace(run, machine=replace(run.machine, processes=2))
    one_process, two_processes = ({s.name: s for s in stages_of(r)} for r in (run, two))
    return two, one_process, two_processes


def device_seconds(stage: Stage, run: Run, shared: bool) -> float:
    """Of the work that processes share, or of the other."""
    works = [(p.processes(run.machine), w) for p in stage.phases for w in p.work]
    return sum(w.times(run.machine, count)[0] for count, w in works if w.shared == shared)


@pytest.mark.parametrize("name", sorted(IN_PROCESSES))
def test_two_processes_take_half_the_hours_of_shared_work(name, both):
    run, one, two = both
    alone = run.alone()
    wanted = device_seconds(one[name], alone, shared=True)
    assert wanted > 0
    assert device_seconds(two[name], run, shared=True) == pytest.approx(wanted / 2)
    rest = device_seconds(one[name], alone, shared=False)
    assert device_seconds(two[name], run, shared=False) == pytest.approx(rest)
    assert rest < wanted


def test_memory_of_the_host_counts_for_every_process(both):
    run, one, two = both
    for name, stage in two.items():
        host, alone = (
            s.peak(r.machine, False)[0] for s, r in ((stage, run), (one[name], run.alone()))
        )
        if name in IN_PROCESSES:  # but each prepares inputs of its share of a step
            assert 1.5 * alone < host <= 2 * alone, name
        else:
            assert host == alone, name


def test_a_gpu_holds_at_most_what_it_holds_alone(both):
    run, one, two = both
    for name, stage in two.items():
        pair = stage.peak(run.machine, True)[0], one[name].peak(run.alone().machine, True)[0]
        assert pair[0] <= pair[1] * (1 + 1e-9), name
    assert two["pretrain"].peak(run.machine, True)[0] < one["pretrain"].peak(run.machine, True)[0]


@pytest.mark.parametrize("gpu, shared, alone", [(24 * GB, 0.5, 1.0), (0, 1.0, 2.0)])
def test_processes_without_gpus_share_the_cores(gpu, shared, alone):
    machine = replace(SMALL_MACHINE, gpu=gpu, cores=2, processes=2)
    for divided, factor in ((True, shared), (False, alone)):
        work = Work(what="w", flop=1e12, moved=1e10, shared=divided)
        before, after = work.times(machine), work.times(machine, 2)
        assert after[:2] == pytest.approx([factor * seconds for seconds in before[:2]])
    one_core = Work(what="w", core_seconds=8, one_core=True, shared=True)
    assert one_core.times(machine, 2)[2] == 4
    cores = Work(what="w", core_seconds=8, shared=True)
    assert cores.times(machine, 2)[2] == cores.times(machine)[2] == 4


def test_only_phases_in_processes_hold_things_twice():
    machine = replace(SMALL_MACHINE, gpu=GB, processes=2)
    held = [Held("a", 3.0), Held("b", 5.0, on_device=True)]
    for in_processes, host in ((True, 6), (False, 3)):
        phase = Phase("p", [], held, in_processes=in_processes)
        assert (phase.size(machine, False), phase.size(machine, True)) == (host, 5)
        without = replace(machine, gpu=0)
        assert phase.size(without, False) == host / 3 * 8
