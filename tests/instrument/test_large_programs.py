"""compare: a large program is judged like a small one, in less memory."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import compare


def test_a_large_program_is_judged_like_a_small_one(monkeypatch):
    from jaxbp.instrument import _answers, _program, _testimony

    functions = {
        "right": rule(product, product_bwd),
        "transposed": spoiled(1, lambda bar, res, g: bar.T),
        "not linear": spoiled(0, lambda bar, res, g: jnp.clip(bar, -99, 99)),
        "overflow": rule(
            jax.nn.softplus, lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),)
        ),
    }
    arguments = dict.fromkeys(functions, (X.astype("f4"), W.astype("f4")))
    arguments["overflow"] = (100 * X.astype("f4"),)
    for name, value in (("LARGE", 4), ("_BLOCK", 7), ("_SAMPLE", 5)):
        for module in (_answers, _program, _testimony):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    for name, f in functions.items():
        for effort in ("quick", "full"):
            comparison = compare(f, *arguments[name], effort=effort)
            kinds = [f.kind for f in comparison.findings]
            assert comparison.ok if name == "right" else name in kinds, comparison


def test_a_large_program_lets_go_of_its_answers(monkeypatch):
    from jaxbp.instrument import _answers, _program
    from jaxbp.instrument._testimony import Testimony

    for large in (1, 2**20):
        for module in (_answers, _program):
            monkeypatch.setattr(module, "LARGE", large)
        program = _program.traced(rule(product, product_bwd), (X, W), {}, None)
        answers = Testimony(program, program.inputs, ["[0]", "[1]"], 0)
        kept = weakref.ref(answers.manual[-1].cotangents[0])
        before = np.array(kept())
        answers.let_go()
        assert (kept() is None) == (large == 1)
        np.testing.assert_array_equal(answers.manual[-1].cotangents[0], before)
