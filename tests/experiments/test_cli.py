"""`python -m experiments`: what it writes, what it prints, what it refuses."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import __main__ as cli
from experiments import _results
from experiments._results import Report, check_folder, write
from experiments._rows import Claim, Witness, tabulate

ROOT = pathlib.Path(cli.__file__).parent.parent
COLUMNS = ["system", "quantity", "published", "published_formula"]
COLUMNS += ["manual", "auto", "numeric", "verdict", "note"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["t13"],
            "expected NAME to be one of t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, "
            "t12, errata, digits, mnist, names; got t13.",
        ),
        (["--sizes", "2", "0", "1"], "expected --sizes to be integers of at least 1; "),
        (
            ["--sizes", "2", "x"],
            "expected --sizes to be integers of at least 1; got x.",
        ),
        (
            ["--sizes", "3", "1"],
            "expected --sizes to start with 2 and end with 1; got 3 1: XOR has two "
            "inputs and one output.",
        ),
        (["--sizes", "2"], "expected --sizes to start with 2 and end with 1; got 2:"),
        (
            ["--epochs", "-1"],
            "expected --epochs to be an integer from 0 to 1,000,000; got -1.",
        ),
        (["--epochs", "1.5"], "expected --epochs to be an integer from 0 to 1,000,00"),
        (["--epochs", "2147483647"], "expected --epochs to be an integer from 0 to 1"),
        (
            ["t11", "--sizes", "2", "99999999999", "1"],
            "expected --sizes to make at most 1,000,000 weights; got 299,999,999,997: "
            "choose smaller layers.",
        ),
        (["--out", ""], "expected --out to be a folder to write in; got an empty name"),
        (
            ["--learning-rate", "nan"],
            "expected --learning-rate to be a positive number; got nan.",
        ),
        (
            ["--learning-rate", "0"],
            "expected --learning-rate to be a positive number; ",
        ),
        (["--learning-rate=-1"], "expected --learning-rate to be a positive number; "),
        (["--learning-rate", "inf"], "expected --learning-rate to be a positive"),
        (
            ["--loss-below", "nan"],
            "expected --loss-below to be a number from 0 on; ",
        ),
        (["--seed=-1"], "expected --seed to be an integer from 0 to 2³²−1;"),
        (["--steps", "0"], "expected --steps to be an integer from 1 to 1,000,000; "),
        (["--steps", "few"], "expected --steps to be an integer from 1 to 1,000,000; "),
        (
            ["t1", "--device", "abacus"],
            "expected --device to be one of cpu:0; got abacus: pip install "
            "'jaxbp[cuda13]', or [cuda12] or [tpu], brings others.",
        ),
        (
            ["t1", "--device", "cpu:7"],
            "expected --device to be one of cpu:0; got cpu:",
        ),
        (
            ["t1", "--device", "cpu:x"],
            "expected --device to be one of cpu:0; got cpu:",
        ),
        (["--bogus"], "unrecognized arguments: --bogus."),
        (["--out"], "--out: expected one argument."),
    ],
)
def test_bad_requests_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert err.startswith(f"experiments: {message}")
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_replaced_is_named(capsys, tmp_path):
    (tmp_path / "t7.json").mkdir()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["t7", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    _, err = capsys.readouterr()
    assert err.startswith("experiments: expected ")
    assert "t7.json to be a file to write" in err
    assert [path.name for path in tmp_path.iterdir()] == ["t7.json"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(cli, "_one", lambda *_: pytest.fail("worked all the same"))
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for folder in (taken, taken / "below"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["t1", "--out", str(folder)])
        err = capsys.readouterr().err
        assert stopped.value.code == 2
        assert err.startswith(
            "experiments: expected --out to be a folder to write in; "
        )
        assert err.count("\n") == 1
    assert taken.read_text() == "a file"


def test_list_says_every_experiment_in_a_line(capsys):
    assert cli.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].lower() for line in lines] == list(cli.NAMES)


def test_a_run_writes_rows_and_prints_them(capsys, tmp_path):
    assert cli.main(["T7", "t7", "--out", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "new" / "folder" / "t7.json").read_text("utf-8"))
    assert content["experiment"] == "t7"
    wanted = {"python", "jax", "jaxlib", "numpy", "jaxbp", "platform"}
    assert set(content["versions"]) == wanted
    assert all(list(row) == COLUMNS for row in content["rows"])
    (row,) = [row for row in content["rows"] if row["quantity"] == "∂f/∂x"]
    assert row["system"] == "T7"
    assert row["published"] == row["manual"] == row["auto"] == -4
    assert row["verdict"] == "met"
    for word in ("published", "hand-written", "autodiff", "numeric", "verdict"):
        assert word in out
    assert "1 of 1 systems" in out
    found = sorted(os.listdir(tmp_path / "new" / "folder"))
    assert found == ["index.html", "t7.json"]


def test_everything_is_float64_and_nothing_of_it_stays(tmp_path, capsys):
    with jax.enable_x64(False):
        assert cli.main(["t1", "--out", str(tmp_path)]) == 0
        assert jnp.ones(()).dtype == jnp.float32
    rows = json.loads((tmp_path / "t1.json").read_text("utf-8"))["rows"]
    assert rows[0]["manual"] == pytest.approx(0.11920292202211755, rel=1e-15)


def test_disagreeing_witnesses_are_said_and_fail(capsys, tmp_path, monkeypatch):
    rows = tabulate("T1", {"g": Witness(1.0, 1.1, 1.0, 1e-12)})
    monkeypatch.setattr(cli, "_one", lambda *_: Report(rows))
    assert cli.main(["t1", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 systems" in out
    assert "t1: the witnesses disagree on g: 1.0, 1.1, 1.0" in out


def test_brackets_of_a_name_are_printed(capsys, tmp_path, monkeypatch):
    rows = tabulate("T4", {"d/dx[x]": Witness(1.0)}, [Claim("d/dx[x]", "2")])
    monkeypatch.setattr(cli, "_one", lambda *_: Report(rows, text="a [bold] word"))
    assert cli.main(["t4", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("d/dx[x]") == 2
    assert "a [bold] word" in out


def test_one_mistake_in_many_numbers_is_said_once(capsys, tmp_path, monkeypatch):
    known = {f"w{k}": Witness(1.0) for k in range(12)}
    rows = tabulate("T6", known, [Claim(name, "2", erratum="E1") for name in known])
    monkeypatch.setattr(cli, "_one", lambda *_: Report(rows))
    assert cli.main(["t6", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("the printed number") == 5
    assert "T6  … and 7 more" in out
    assert "E1: the same mistake" in out


def test_the_non_finite_are_strings(tmp_path):
    known = {"a": Witness(math.inf, -math.inf, math.nan), "b": Witness(1.5)}
    (path,) = write(tmp_path, "t0", Report(tabulate("T0", known, [Claim("b", "1.5")])))
    first, second = json.loads(path.read_text("utf-8"))["rows"]
    assert (first["quantity"], first["published"], first["auto"]) == ("b", 1.5, None)
    assert [second[k] for k in ("manual", "auto", "numeric")] == ["inf", "-inf", "nan"]


def test_figures_are_the_same_bytes_twice(tmp_path):
    figure_module = pytest.importorskip("matplotlib.figure")
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        figure = figure_module.Figure()
        figure.subplots().plot([0, 1], [1, 0])
        check_folder(folder)
        paths = write(folder, "t0", Report([], {"t0_line": figure}))
        assert [p.name for p in paths] == ["t0.json", "t0_line.svg", "t0_line.png"]
        contents.append([p.read_bytes() for p in paths])
    assert contents[0] == contents[1]


def test_a_write_that_breaks_leaves_the_old_file_whole(tmp_path):
    def breaks(stream):
        stream.write(b"half")
        raise RuntimeError("power cut")

    path = tmp_path / "t0.json"
    path.write_text("the old one")
    with pytest.raises(RuntimeError, match="power cut"):
        _results.write_whole(path, breaks)
    assert path.read_text() == "the old one"
    assert os.listdir(tmp_path) == ["t0.json"]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_tables_fit_the_terminal(tmp_path, columns):
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "t2", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert any("∂e/∂d" in line and "erratum E8" in line for line in lines)
    assert "\x1b" not in done.stdout


def test_a_terminal_without_greek_gets_question_marks():
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "--list"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        encoding="ascii",
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("T1: one sigmoid unit, f = ?(a)")
