"""The scripts say plainly what is missing, and set up once."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def clone(tmp_path):
    """The scripts in a repository of their own, where .venv is not ours to spoil."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _interpreter(folder, version="3.11", venv=0, pip=0):
    """A stand-in for Python that makes a venv of stand-ins, or fails at a step."""
    path = folder / "python-stand-in"
    path.write_text(f"""#!/bin/sh
case "$*" in
  -c*) echo {version} ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python; exit {venv} ;;
  "-m pip"*) echo "installing: $*"; exit {pip} ;;
  *) echo "running: $*" ;;
esac
""")
    path.chmod(0o755)
    return str(path)


def _run(clone, script, interpreter, *arguments, cwd=None):
    return subprocess.run(
        [str(clone / "scripts" / script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd or clone,
        env=os.environ | {"PYTHON": interpreter},
    )


def test_set_up_happens_once_and_from_any_directory(clone, tmp_path):
    python = _interpreter(tmp_path)
    first = _run(clone, "run", python, "t1", cwd="/")
    assert first.returncode == 0, first.stderr
    assert "setting up .venv with Python 3.11 (once" in first.stdout
    assert "constraint scripts/constraints/python3.11.txt" in first.stdout
    assert "running: -P -m experiments t1" in first.stdout
    second = _run(clone, "test", python, "-k", "one")
    assert second.stdout.startswith("running: -m pytest -n auto")
    assert second.stdout.endswith(" -k one\n")
    mutate = _run(clone, "mutate", python, "--only", "add", cwd="/")
    assert mutate.stdout == "running: -P -m scripts.mutation --only add\n"
    cluster = _run(clone, "cluster", python, "2", "true", cwd="/")
    assert cluster.stdout == f"running: -P {clone}/scripts/_cluster.py 2 true\n"
    (clone / "pyproject.toml").write_text("changed")
    assert "setting up" in _run(clone, "run", python).stdout


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ({"version": "3.10"}, "Python >= 3.11 is needed"),
        ({"venv": 1}, "has no venv module; install it"),
        ({"pip": 1}, "is there a network"),
    ],
    ids=["too old", "no venv", "no network"],
)
def test_what_is_missing_is_said_plainly(clone, tmp_path, failure, text):
    done = _run(clone, "run", _interpreter(tmp_path, **failure))
    assert done.returncode == 1
    assert done.stderr.startswith("run: ")
    assert text in done.stderr
    assert "running" not in done.stdout
    assert not (clone / ".venv" / "installed").exists()


def test_an_interpreter_that_is_not_there_is_named(clone):
    done = _run(clone, "test", "python9")
    assert done.returncode == 1
    assert done.stderr.startswith("test: python9 does not run; set PYTHON")
