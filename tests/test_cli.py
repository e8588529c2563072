"""`jaxbp`: what it prints, what it refuses, and the codes it exits with."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import jaxbp
from jaxbp import cli

ROOT = pathlib.Path(jaxbp.__file__).parent.parent
MODULE = """
import jax
import jax.numpy as jnp

def keep(x):
    return x * x, x

@jax.custom_vjp
def square(x):
    return x * x

@jax.custom_vjp
def cube(x):
    return x * x

square.defvjp(keep, lambda x, y_bar: (2 * x * y_bar,))
cube.defvjp(keep, lambda x, y_bar: (3 * x * y_bar,))

class Holder:
    square = staticmethod(square)

def plain(x):
    return x**2

def other_shape(x):
    return x[:1]

def fails(x):
    raise KeyError("inside fails")

def make_args():
    return (jnp.arange(1.0, 4.0, dtype=jnp.float64),)

def make_kwargs():
    return {"x": jnp.arange(1.0, 4.0, dtype=jnp.float64)}

def make_array():
    return jnp.arange(3.0)

def make_nothing():
    raise KeyError("inside make_nothing")

def chatty(x):
    print("hello")
    return square(x)


def make_exit():
    raise SystemExit(0)


def total(x):
    return square(x).sum()


def wrong_total(x):
    return cube(x).sum()


def scanned(x):
    return jax.lax.scan(lambda c, y: (jnp.sin(c) * y, c), x[0], x)[0]


number = 3
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A working directory with a module `rules` in it, forgotten afterwards."""
    (tmp_path / "rules.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_module_of_theirs\n")
    (tmp_path / "unclosed.py").write_text("x = (\n")
    (tmp_path / "raising.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in ("rules", "broken", "unclosed", "raising"):
        sys.modules.pop(name, None)


def asked(verb, function="square", args="make_args", *more):
    return cli.main([verb, f"rules:{function}", "--args", f"rules:{args}", *more])


def test_a_right_rule_exits_with_0_and_a_wrong_one_with_1(capsys):
    assert asked("compare") == 0
    assert capsys.readouterr().out.startswith("compare(square): right\n")
    assert asked("compare", "cube") == 1
    assert capsys.readouterr().out.startswith("compare(cube): wrong\n")


def test_options_reach_the_verb(capsys):
    more = ("--numeric", "--seed", "3", "--reference", "rules:plain", "--json")
    assert asked("compare", "Holder.square", "make_kwargs", *more) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["worst"]["numeric"] == pytest.approx(finding["worst"]["manual"])


def test_a_surrogate_is_declared_and_the_second_derivative_asked_for(capsys):
    assert asked("compare", "cube", "make_args", "--surrogate", "[0]") == 0
    assert capsys.readouterr().out.startswith("compare(cube): surrogate\n")
    assert asked("compare", "square", "make_args", "--order", "2") == 0
    with pytest.raises(SystemExit) as ended:
        asked("compare", "square", "make_args", "--order", "3")
    assert ended.value.code == 2
    assert "expected order to be 1 or 2; got 3." in capsys.readouterr().err


def test_a_script_that_exits_is_not_taken_for_an_answer(capsys):
    with pytest.raises(SystemExit) as ended:
        asked("compare", "square", "make_exit")
    assert ended.value.code == 2
    assert "rules:make_exit raised SystemExit; see above." in capsys.readouterr().err


def test_cost_prints_a_table_or_json(capsys):
    assert asked("cost", "cube", "make_args", "--rounds", "2") == 0
    assert "kept beside the arguments" in capsys.readouterr().out
    assert asked("cost", "cube", "make_args", "--rounds", "2", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["time"]["rounds"]) == (1, 2)


FORMATS = {
    "svg": b"<svg ",
    "png": b"\x89PNG",
    "html": b"<!doctype html>",
    "txt": b"graph(total): ",
    "md": b"## graph(total)",
    "json": b"{",
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_graph_writes_what_the_suffix_says(capsys, tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    assert asked("graph", "total", "make_args", "--out", str(path)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "graph(total): 2 nodes"
    assert said[-1] == f"in {path}"
    start = path.read_bytes()[:40]
    assert start.startswith(FORMATS[suffix])


def test_graph_prints_text_or_json_and_a_wrong_link_exits_with_1(capsys):
    assert asked("graph", "total") == 0
    assert "first wrong link" not in capsys.readouterr().out
    assert asked("graph", "wrong_total") == 1
    assert "first wrong link from the loss: cube" in capsys.readouterr().out
    assert asked("graph", "wrong_total", "make_args", "--json") == 1
    assert json.loads(capsys.readouterr().out)["wrong"]["rule"] == "cube"


def test_graph_closes_the_groups_asked_for(capsys, tmp_path):
    path = tmp_path / "picture.svg"
    graph = ("graph", "scanned", "make_args", "--out", str(path), "--close")
    assert asked(*graph, "scan[0]") == 0
    assert "closed are scan[0]" in path.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        asked(*graph, "scan[9]")
    assert ended.value.code == 2
    assert "jaxbp.Graph.close: expected groups to be " in capsys.readouterr().err


def test_graph_draws_the_iteration_asked_for(capsys):
    assert asked("graph", "scanned", "make_args", "--iteration", "2") == 0
    assert "scan[2]" in capsys.readouterr().out


def test_a_suffix_may_be_in_capitals(tmp_path):
    path = tmp_path / "PICTURE.SVG"
    assert asked("graph", "total", "make_args", "--out", str(path)) == 0
    assert path.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("total", "make_args", "--out", "picture.gif"), "one of .svg, .png, .html, "),
        (
            ("total", "make_args", "--out", "no/such/picture.svg"),
            "a file that can be w",
        ),
        (("square", "make_args"), "jaxbp.graph: expected cotangent to be "),
    ],
)
def test_a_graph_that_cannot_be_had_exits_with_2(capsys, more, message):
    with pytest.raises(SystemExit) as ended:
        asked("graph", *more)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_without_the_wheel_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(SystemExit) as ended:
        asked("graph", "total", "make_args", "--out", "picture.svg")
    assert ended.value.code == 2
    assert "pip install 'jaxbp[report]'" in capsys.readouterr().err
    assert not os.path.exists("picture.svg")
    assert asked("graph", "total", "make_args", "--out", "picture.txt") == 0


def test_doctor_tells_versions_and_what_is_missing(capsys, monkeypatch):
    from jaxbp import _doctor

    monkeypatch.setattr(_doctor, "_missing", lambda extra: ["orbax-checkpoint"])
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "jaxlib", "devices", "x64", "JAX_CUSTOM_VJP3"):
        assert name in out
    assert "without orbax-checkpoint: pip install 'jaxbp[train]'" in out
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["x64"] is True


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("rules", "rules:make_args", "expected FUNCTION to be package.module:function"),
        ("absent:f", "rules:make_args", "got absent:f: there is no module absent."),
        ("rules.sub:f", "rules:make_args", "got rules.sub:f: there is no module"),
        ("rules:absent", "rules:make_args", "expected FUNCTION to be a function of "),
        ("rules:number", "rules:make_args", "got rules:number, of type int."),
        ("rules:square", "rules:number", "expected --args to be a function; got "),
        ("rules:square", "rules:make_array", "expected --args to return a tuple of "),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(capsys, function, args, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", function, "--args", args])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("jaxbp: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB; see jaxbp --help."),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["compare", "rules:square"], "required: --args"),
        (
            ["audit", "rules:square", "--args", "rules:make_args", "--numeric"],
            "unrecog",
        ),
        (["cost", "rules:square", "--args", "x:y", "--rounds", "few"], "invalid int"),
    ],
)
def test_a_wrong_command_line_exits_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_the_verb_refuses_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        asked("cost", "square", "make_args", "--reference", "rules:other_shape")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxbp.cost: expected reference to be a function with f's")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("function", "args", "whose"),
    [
        ("rules:fails", "rules:make_args", "rules:fails raised KeyError"),
        ("rules:square", "rules:make_nothing", "rules:make_nothing raised KeyError"),
        ("broken:f", "rules:make_args", "importing broken raised ModuleNotFoundError"),
        ("unclosed:f", "rules:make_args", "importing unclosed raised SyntaxError"),
        ("raising:f", "rules:make_args", "importing raising raised ZeroDivisionError"),
    ],
)
def test_an_error_in_the_users_code_shows_its_traceback(capsys, function, args, whose):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", function, "--args", args])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" in error or "unclosed.py" in error
    assert error.splitlines()[-1] == f"jaxbp: {whose}; see above."
    # From the user's own line on.
    assert "cli.py" not in error
    assert "importlib" not in error


def test_help_does_not_wait_for_jax():
    code = (
        "import sys\nfrom jaxbp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n"
        "    print(end.code, 'jax' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_what_the_users_code_prints_is_not_in_the_json(capsys):
    assert asked("compare", "chatty", "make_args", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "right"
    assert "hello" in err


def test_an_answer_that_cannot_be_written_is_no_verdict():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "jaxbp", "doctor"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("jaxbp: the answer could not be written")
