"""The README tells the truth: its examples print what it says they print."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = r"((?:(?!```).)*)```"
EXAMPLES = re.findall(rf"```python\n{BLOCK}\n\n```text\n{BLOCK}", README, re.DOTALL)
MODEL = re.findall(rf"here `model.py`:\n\n```python\n{BLOCK}", README, re.DOTALL)
COMMANDS = re.findall(
    rf"```sh\njaxbp ([^\n]*)\n```\n\n```text\n{BLOCK}", README, re.DOTALL
)
TABLES = re.findall(
    r"From `\./scripts/run (.*?)`.*?```text\n(.*?)```", README, re.DOTALL
)


def _run(*command, cwd=ROOT, code=0):
    environment = os.environ | {"COLUMNS": "100", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_there_are_examples_and_tables_to_check():
    assert len(EXAMPLES) == 5
    assert len(MODEL) == 1
    assert len(COMMANDS) == 3
    assert len(TABLES) == 1


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_an_example_prints_what_stands_below_it(code, printed):
    assert _run("-c", code) == printed


def test_a_rule_of_ones_own_comes_to_the_verdicts_shown(tmp_path):
    (model,), (audited, drawn, compared) = MODEL, COMMANDS
    mended = model.replace("(3 * y_bar,)", "(2 * y_bar,)")
    assert mended != model
    for source, (command, printed), code in (
        (model, audited, 1),
        (model, drawn, 1),
        (mended, compared, 0),
    ):
        (tmp_path / "model.py").write_text(source)
        output = _run("-m", "jaxbp", *command.split(), cwd=tmp_path, code=code)
        assert output == printed


def test_the_picture_is_what_is_drawn():
    """But for where Graphviz, of whatever version, puts it."""
    (path,) = re.findall(r"!\[[^\]]*\]\((pictures/\w+\.svg)\)", README)
    code = "from jaxbp import graph, nets\n"
    code += (
        f"g = graph(nets.{pathlib.Path(path).stem}, 1.0, -2.0, -3.0)\nprint(g.svg())"
    )
    shown = (ROOT / path).read_text(encoding="utf-8")
    texts = [
        re.findall(r"<text[^>]*>(.*?)</text>", svg) for svg in (shown, _run("-c", code))
    ]
    assert sorted(texts[0]) == sorted(texts[1])
    assert "∂e/∂d = c = −3" in texts[0]


@pytest.mark.parametrize(("arguments", "table"), TABLES)
def test_every_line_of_a_table_is_in_the_output(arguments, table, tmp_path):
    output = _run("-m", "experiments", *arguments.split(), "--out", str(tmp_path))
    lines = {line.rstrip() for line in output.splitlines()}
    for line in table.splitlines():
        assert line in lines


def test_every_experiment_is_in_the_readme():
    listed = _run("-m", "experiments", "--list").splitlines()
    names = {line.split(":")[0].lower() for line in listed}
    in_readme = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert names <= in_readme
