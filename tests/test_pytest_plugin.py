"""The `assert_gradients` fixture, in a pytest run of its own."""

import os
import pathlib
import subprocess
import sys

import jaxbp

ROOT = pathlib.Path(jaxbp.__file__).parent.parent
SUITE = """
import jax
import jax.numpy as jnp

@jax.custom_vjp
def square(x):
    return x * x

def test_it(assert_gradients):
    assert_gradients(square, jnp.arange(1.0, 4.0))
"""
RIGHT = "square.defvjp(lambda x: (x * x, x), lambda x, y_bar: (2 * x * y_bar,))"
WRONG = "square.defvjp(lambda x: (x * x, x), lambda x, y_bar: (3 * x * y_bar,))"


def run(arguments, **options):
    # By name, not by entry point: the test holds where jaxbp is not installed.
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def pytest_run(folder, *rules):
    for k, rule in enumerate(rules):
        (folder / f"test_{k}.py").write_text(SUITE + rule + "\n")
    arguments = ["-m", "pytest", "-p", "jaxbp.pytest_plugin", "-p", "no:cacheprovider"]
    return run(arguments, cwd=folder)


def test_a_right_rule_passes_and_a_wrong_one_fails_with_the_table(tmp_path):
    done = pytest_run(tmp_path, RIGHT, WRONG)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "compare(square): wrong" in done.stdout
    assert "hand-written" in done.stdout
    failures = done.stdout.split("FAILURES")[1]
    assert "test_0.py" not in failures
    assert "_compare.py" not in failures  # the traceback ends at the test's own line


def test_a_run_that_does_not_ask_for_it_does_not_wait_for_jax():
    done = run(["-c", "import jaxbp.pytest_plugin, sys; print('jax' in sys.modules)"])
    assert done.stdout.strip() == "False", done.stderr
