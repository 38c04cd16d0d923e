"""A study in PostgreSQL, and workers that are machines of their own to the network: two network namespaces.

It needs root, ``ip``, and PostgreSQL's programs; without them it fails. Deselected by default; run it
with ``pytest -m postgresql``.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import TRIAL, open_storage, open_study, queue_again, storage_url

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]

NET = "10.213.77"


def run(*arguments, **options):
    return subprocess.run(list(map(str, arguments)), check=True, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(scope="module")
def machines():
    """Two network namespaces and a bridge, on which the database listens; they see each other over it only."""
    tag = f"fs{os.getpid() % 100000}"
    names = [f"{tag}a", f"{tag}b"]
    try:
        run("ip", "link", "add", tag, "type", "bridge")
        run("ip", "address", "add", f"{NET}.1/24", "dev", tag)
        run("ip", "link", "set", tag, "up")
        for number, name in enumerate(names, 2):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", name, "master", tag, "up")
            for line in (
                f"address add {NET}.{number}/24 dev eth0",
                "link set eth0 up",
                "link set lo up",
            ):
                run("ip", "-n", name, *line.split())
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", tag], check=False)


@pytest.fixture(scope="module")
def database(machines):
    """A server on the bridge; gives the URL of a database, and what stops the server."""
    home = Path(tempfile.mkdtemp(prefix="firstspike-"))  # pytest's folders are for its user alone
    found = shutil.which("pg_ctl") or next(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    programs = Path(found).resolve().parent
    password = home / "password"
    password.write_text("secret\n")
    for path in (home, password):
        shutil.chown(path, "postgres")
    as_postgres = ("runuser", "-u", "postgres", "--")
    place = home / "data"
    run(*as_postgres, programs / "initdb", "-D", place, "-A", "scram-sha-256", f"--pwfile={password}", "-U", "sweeper")
    with (place / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {NET}.0/24 scram-sha-256\n")
    options = f"-c listen_addresses={NET}.1 -c port=5499 -c unix_socket_directories={home}"
    subprocess.run(
        [*as_postgres, programs / "pg_ctl", "-D", place, "-w", "-o", options, "-l", home / "log", "start"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )

    def stop():
        line = [*as_postgres, programs / "pg_ctl", "-D", place, "-m", "immediate", "stop"]
        subprocess.run(line, check=False, capture_output=True, timeout=60)

    try:
        yield f"postgresql://sweeper:secret@{NET}.1:5499/postgres", stop
    finally:
        stop()
        shutil.rmtree(home)


def test_two_machines_and_two_workers_that_are_killed(
    machines, database, command, six, study_of, busy, check_six, tmp_path
):
    here, there = (("ip", "netns", "exec", name) for name in machines)
    with pytest.raises(subprocess.CalledProcessError):  # the machines have no network but the bridge
        run(*there, "ip", "route", "get", "192.0.2.1")
    url, _ = database
    line = ("sweep", six, "--storage", url, "-q")
    first = command.start(*line, "--workers", 2, before=here)
    second = command.start(*line, before=there)
    study = study_of(url)
    one, killed = busy(study)
    os.kill(killed, signal.SIGKILL)
    other, worker = busy(study, besides=[killed])
    os.kill(worker, signal.SIGKILL)
    outcomes = []
    for process in (first, second):
        _, err = process.communicate(timeout=400)
        assert "Traceback" not in err
        outcomes.append((process.returncode, err))
    assert any("a worker died of signal 9" in err for _, err in outcomes)
    assert any(code == 0 for code, _ in outcomes)
    code, out, _ = command("sweep-table", "six", "--storage", url)
    assert code == 0
    assert len(out.splitlines()) == 6 + 3
    check_six(six, study, one, other)
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "runs" / "six").glob("sweep.*"))
    code, _, err = command("sweep-table", "six")
    assert code == 2
    assert "A sweep of a database whose URL has a password needs --storage" in err


MANY = """
base: bars
axes: {training.optimizer.lr: {from: 0.001, to: 1.0}}
sampler: random
trials: 24
"""


def _meet(barrier):
    global _others
    _others = barrier


def _start(where, file):
    """Joins a sweep at the same moment as the others, as the command does."""
    plan, storage = load_plan(file), open_storage(storage_url(where, Path()))
    _others.wait(timeout=300)
    queue_again(open_study(plan, storage), storage)


def test_who_start_at_the_same_moment_queue_each_trial_once(database, write_sweep, opened):
    """At first, and again after two of them have failed."""
    url, _ = database
    file, spawn = write_sweep(MANY, name="many"), multiprocessing.get_context("spawn")
    with spawn.Pool(3, _meet, [spawn.Barrier(3)]) as pool:
        for _ in range(2):
            pool.starmap(_start, [(url, file)] * 3, chunksize=1)
            study = optuna.load_study(study_name="many", storage=opened(url))
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            assert sorted(trial.user_attrs[TRIAL] for trial in waiting) == list(range(24))
            for trial in [study.ask(), study.ask()]:
                study.tell(trial, state=TrialState.FAIL)


def test_a_server_that_is_gone_is_one_message(database, command, six, study_of, busy):
    url, stop = database
    process = command.start("sweep", six, "--storage", url, "--name", "gone", "-q")
    busy(study_of(url, "gone"))
    stop()
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: postgresql://sweeper:***@")
    assert "Traceback" not in err
