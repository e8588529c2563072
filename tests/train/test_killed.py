"""A run killed at any moment, also while it saves, goes on as if never stopped."""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

CHILD = pathlib.Path(__file__).with_name("saving.py")
PATIENCE = 120.0  # seconds for one more checkpoint, on a machine that is busy


def command(folder, steps):
    return [sys.executable, str(CHILD), str(folder), str(steps)]


def run(folder, steps):
    """To its end: the bits of the parameters."""
    ended = subprocess.run(
        command(folder, steps), capture_output=True, text=True, env=environment()
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def environment():
    root = str(pathlib.Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root}


def complete(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def being_written(folder):
    return any("tmp" in p.name for p in folder.iterdir())


def killed(folder, steps, wait):
    """After one more checkpoint and when `wait` has had its way."""
    before = complete(folder)[-1:]
    asked, until = command(folder, steps), time.monotonic() + PATIENCE
    with subprocess.Popen(asked, env=environment()) as child:
        try:
            while complete(folder)[-1:] <= before:
                assert child.poll() is None, "it ended by itself"
                assert time.monotonic() < until, "no checkpoint"
                time.sleep(0.002)
            wait(until)
        finally:
            child.kill()


def times_killed(folder, times, steps):
    rng = random.Random(0)
    while_saving = 0
    for k in range(times):

        def wait(until, k=k):
            if k % 2:
                time.sleep(rng.uniform(0, 0.2))
                return
            while not being_written(folder) and time.monotonic() < until:
                pass

        before = complete(folder)
        killed(folder, steps, wait)
        while_saving += being_written(folder)
        assert set(before[-1:]) <= set(complete(folder)), "an older one is lost"
    assert while_saving
    assert run(folder, steps) == run("", steps)


def test_killed_three_times(tmp_path):
    times_killed(tmp_path, 3, 600)


@pytest.mark.slow
def test_killed_thirty_times(tmp_path):
    times_killed(tmp_path, 30, 3000)
