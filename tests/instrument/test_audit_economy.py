"""audit: alike calls are compiled once, and a long program is run once."""

import time

import jax
import jax.numpy as jnp
from audited import X, right, wrong

from jaxbp import _interpret
from jaxbp.instrument._audit import audit
from jaxbp.instrument._compiled import Programs
from jaxbp.instrument._pair import Pair


def test_alike_calls_share_their_compiled_programs():
    def f(x):
        return wrong(wrong(wrong(x)))

    eqns = jax.make_jaxpr(f)(X).eqns
    programs = Programs()
    pairs = [Pair(eqn, [X], programs) for eqn in eqns]
    for pair in pairs:
        pair.ask([X], [X])
    assert len(pairs) == 3
    assert len(programs) == 2


def test_five_hundred_equations_are_a_matter_of_seconds(monkeypatch):
    def f(x):
        for _ in range(100):
            x = right(x) * 1.1 + jnp.cos(x) - 0.3 * x
        return x.sum()

    runs = []
    once = _interpret.run_equation
    monkeypatch.setattr(
        _interpret, "run_equation", lambda *args: (runs.append(1), once(*args))[1]
    )
    start = time.perf_counter()
    found = audit(f, X)
    assert time.perf_counter() - start < 60  # 4 s where nothing else runs
    assert found.verdict == "right"
    assert found.findings[0].calls == 100
    # Each of 501 once forward; of the rules' calls each is traced once more, to be
    # compiled. One run of what lies before every call would be 25,000.
    assert 501 <= len(runs) < 4 * 501
