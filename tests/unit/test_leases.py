"""Locks where the file system has none that all machines obey: leases, and who takes them over."""

import errno
import json
import multiprocessing
import os
import threading
import time

import pytest

from superbit.upstreams import files, leases
from superbit.upstreams.leases import Lease


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_flock(request, monkeypatch):
    """A file system that answers every flock so."""
    import fcntl

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    leases._flock_holds.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuse)
    yield
    leases._flock_holds.cache_clear()


def test_one_at_a_time_without_flock(no_flock, tmp_path):
    at_work, most, done = [0], [0], []

    def work():
        with files.locked(tmp_path / "locks" / "run", every=0.002) as ours:
            assert ours
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
            time.sleep(0.005)
            at_work[0] -= 1
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(done)) == (1, 8)
    assert list((tmp_path / "locks").iterdir()) == []


def test_who_does_not_wait_is_told(no_flock, tmp_path):
    with files.locked(tmp_path / "run"):
        with files.locked(tmp_path / "run", stop=lambda: True) as ours:
            assert not ours
        # whoever was refused leaves the holder's claim alone
        with files.locked(tmp_path / "run", stop=lambda: True) as ours:
            assert not ours


def hold(path, **changes):
    """Write a lease of somebody else; give its file."""
    file = Lease(path).file
    holder = {"host": "another", "pid": 1, "began": None, "job": None, "token": "theirs"}
    file.write_text(json.dumps(holder | changes))
    return file


def age(file, seconds):
    then = time.time() - seconds
    os.utime(file, (then, then))


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [(0, False), (leases.STALE_AFTER - 20, False), (leases.STALE_AFTER + 5, True)],
)
def test_another_machines_lease_is_taken_over_when_it_is_not_renewed(tmp_path, seconds, taken):
    age(hold(tmp_path / "run"), seconds)
    assert Lease(tmp_path / "run").acquire() == taken


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path):
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()
    hold(tmp_path / "run", host=leases.this_host(), pid=ended.pid)
    assert Lease(tmp_path / "run").acquire()


def test_a_number_that_another_process_has_by_now_holds_nothing(tmp_path):
    own = {"host": leases.this_host(), "pid": os.getpid()}
    hold(tmp_path / "alive", **own, began=leases.began(os.getpid()))
    assert not Lease(tmp_path / "alive").acquire()
    hold(tmp_path / "again", **own, began="1")
    assert Lease(tmp_path / "again").acquire()


def test_a_job_that_slurm_does_not_know_holds_nothing(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text(
        '#!/bin/sh\ncase "$*" in *77*) echo RUNNING;; *) echo "slurm_load_jobs error: '
        'Invalid job id specified" >&2; exit 1;; esac\n'
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for job, taken in (("77", False), ("78", True)):
        age(hold(tmp_path / job, job=job), 60)
        assert Lease(tmp_path / job).acquire() == taken


def test_of_many_that_find_it_stale_one_takes_it(tmp_path):
    for _ in range(20):
        age(hold(tmp_path / "run"), leases.STALE_AFTER + 5)
        won = []

        def claim(won=won):
            lease = Lease(tmp_path / "run")
            if lease.acquire():
                won.append(lease)

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1  # the others may have found the one at it in their way
        for lease in won:
            lease.release()


def test_it_is_renewed_and_what_was_taken_over_is_not(tmp_path, monkeypatch):
    lease = Lease(tmp_path / "run")
    assert lease.acquire()
    age(lease.file, 100)
    lease.renew()
    assert time.time() - lease.file.stat().st_mtime < 50
    hold(tmp_path / "run")
    age(lease.file, 100)
    lease.renew()
    lease.release()
    assert time.time() - lease.file.stat().st_mtime > 50


@pytest.mark.parametrize(
    ("line", "is_of_one"),
    [
        ("{} rw,relatime - ext4 /dev/sda rw", False),
        ("{} rw,relatime - nfs4 server:/x rw,vers=4.2,local_lock=none", False),
        ("{} rw,relatime - nfs server:/x rw,nolock,local_lock=all", True),
        ("{} rw,relatime - lustre mgs:/x rw,flock,lazystatfs", False),
        ("{} rw,relatime - lustre mgs:/x rw,localflock", True),
        ("{} rw,relatime - fuse.sshfs me@there: rw,user_id=0", True),
    ],
)
def test_whose_flock_is_each_machines_own(tmp_path, monkeypatch, line, is_of_one):
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/root rw\n" + f"36 22 0:40 / {line.format(tmp_path)}\n"
    )
    real = leases.Path
    monkeypatch.setattr(
        leases, "Path", lambda path: table if path == "/proc/self/mountinfo" else real(path)
    )
    assert leases._is_of_one_node(tmp_path / "results") == is_of_one


def test_what_a_killed_process_was_writing_is_removed_and_nobody_elses(tmp_path, monkeypatch):
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()

    def left_by(host, pid):
        monkeypatch.setattr(leases, "this_host", lambda: host)
        monkeypatch.setattr(files.os, "getpid", lambda: pid)
        with files.replaced(tmp_path / "KS" / "record.json") as partial:
            partial.write_text("whole")
        partial.write_text("half")
        return partial

    own, host = os.getpid(), leases.this_host()
    dead, alive, far = left_by(host, ended.pid), left_by(host, own), left_by("there", ended.pid)
    monkeypatch.undo()
    files.remove_leftovers(tmp_path)
    assert (dead.exists(), alive.exists(), far.exists()) == (False, True, True)
