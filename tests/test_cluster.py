"""Runs on a dask.distributed cluster: a scheduler and two worker processes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import tifffile

import tiny_run
from sureloc.errors import InputError, MovieError, OutputError
from sureloc.io.output import partial_folder
from sureloc.runs import execution, localization
from sureloc.runs.execution import do_units
from sureloc.runs.job import open_job
from sureloc.runs.scheduler import check_scheduler
from test_runs import contents, parts_of, raising
from tiny_run import run

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

FRAMES = 8


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.tif"
    tifffile.imwrite(path, tiny_run.frames(FRAMES).astype(np.float32), photometric="minisblack")
    return path


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def learned(film):
    """A run that was stopped when it had learned from its movie and done nothing else."""
    out = film.parent / "learned"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(localization, "_write_results", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(film, out)
    shutil.copytree(partial_folder(out), film.parent / "all")
    for part in (partial_folder(out) / "parts").iterdir():
        shutil.rmtree(part)
    return partial_folder(out)


def test_a_killed_worker_loses_nothing_and_the_table_is_that_of_one_process(
    film, cluster, learned, tmp_path
):
    """One of both workers is killed among the units; the other files are those of threads."""
    shutil.copytree(film.parent / "all", partial_folder(tmp_path / "alone"))
    run(film, tmp_path / "alone", resume=True)
    out = tmp_path / "out"
    shutil.copytree(learned, partial_folder(out))
    killed = []

    def kill():
        end = time.monotonic() + 120
        while parts_of(partial_folder(out)) < 2 and time.monotonic() < end:
            time.sleep(0.002)
        worker = next(iter(cluster.workers.values()))
        killed.append(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)

    said, calls = [], []
    thread = threading.Thread(target=kill)
    thread.start()
    run(
        film,
        out,
        resume=True,
        scheduler=cluster.scheduler_address,
        say=said.append,
        progress=lambda: calls.append(1),
    )
    thread.join()
    assert killed
    assert contents(out) == contents(tmp_path / "alone")
    assert len(calls) == FRAMES
    assert f"8 units of work go to {cluster.scheduler_address}; watch them at http" in said[0]


def test_a_task_that_fails_names_its_frame(film, cluster, learned, tmp_path):
    folder = tmp_path / "out.partial"
    shutil.copytree(learned, folder)
    job = open_job(folder)
    hurt = tiny_run.frames(FRAMES).astype(np.float32)
    hurt[5, 3, 4] = np.nan
    before = film.read_bytes()
    try:
        tifffile.imwrite(film, hurt, photometric="minisblack")
        with (
            job.movie,
            pytest.raises(MovieError, match="the first in frame 5, row 3, column 4") as caught,
        ):
            do_units(job, job.units, cluster.scheduler_address, lambda: None, lambda _: None)
    finally:
        film.write_bytes(before)
    assert "This happened in frame 5" in str(caught.value.__notes__)
    assert not (folder / "parts" / "000005").exists()


def test_workers_use_one_thread_each(cluster):
    def threads():
        import torch
        from threadpoolctl import threadpool_info

        execution.limit_threads()
        return torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}

    with distributed.Client(cluster, set_as_default=False) as client:
        found = client.run(threads)
    assert all(number == 1 and pools <= {1} for number, pools in found.values())


def test_a_scheduler_that_does_not_answer_is_said(learned, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "CONNECT_S", 0.3)
    folder = tmp_path / "out.partial"
    shutil.copytree(learned, folder)
    job = open_job(folder)
    with (
        job.movie,
        pytest.raises(InputError, match=r"No scheduler answers at tcp://127\.0\.0\.1:9"),
    ):
        do_units(job, job.units, "tcp://127.0.0.1:9", lambda: None, lambda _: None)


def test_parts_that_cannot_be_seen_from_here_are_said(learned, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "LATE_S", 0.0)
    folder = tmp_path / "out.partial"
    shutil.copytree(learned, folder)
    job = open_job(folder)
    with job.movie, pytest.raises(OutputError, match="frames 0:1 and 7 more are not in"):
        execution._wait_for_parts(job, job.units)


def test_a_cluster_needs_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'sureloc\[cluster\]'"):
        check_scheduler("tcp://10.0.0.1:8786")


def test_a_unit_that_kills_workers_is_named(tmp_path):
    from distributed.scheduler import KilledWorker

    class Unit:
        name = "frames 3:4"

    error = KilledWorker("task", None, 3)
    with pytest.raises(OutputError, match="Several workers died while they worked on frames 3:4"):
        execution._raise_for(error, Unit(), tmp_path)
