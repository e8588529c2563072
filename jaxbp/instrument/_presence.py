"""Did a hand-written backward pass take part in the gradient that was compared?"""

from typing import Any

import jax
import numpy as np

from jaxbp._jaxpr import bodies, find_rules, live, without_rules
from jaxbp._sweep import sweep
from jaxbp.instrument._testimony import Testimony


def took_part(answers: Testimony) -> bool:
    """Whether a user's rule was met by a cotangent, on the way to a leaf.

    It was not where the rule is off the differentiated path, behind a stop_gradient or
    a factor of 0, or in a branch that is not taken at this point. The program is swept
    only where that is in doubt: where both pullbacks read or answer alike, or a branch
    holds a rule.
    """
    program = answers.program
    if answers.refused:
        return True
    args = (answers.inputs, answers.probes[0])
    manual, auto = (
        jax.make_jaxpr(witness.pullback)(*args)
        for witness in (program.manual, program.auto)
    )
    alike = str(live(without_rules(manual))) == str(live(auto))
    jaxpr = program.manual.jaxpr
    doubtful = alike or _behind_a_branch(jaxpr)
    if not doubtful and not _same(answers):
        return True
    bars: list[Any] = [None] * len(jaxpr.out_avals)
    for k, bar in zip(program.manual.outputs, answers.probes[0], strict=True):
        bars[k] = jax.numpy.asarray(bar, jaxpr.out_avals[k].dtype)
    _, _, steps = sweep(jaxpr, answers.inputs, bars, wires=False)
    met = [_passed(step) for step in steps if _holds_rule(step)]
    return any(met) or not (doubtful or met)


def _same(answers: Testimony) -> bool:
    pairs = zip(answers.manual[0].cotangents, answers.auto[0].cotangents, strict=True)
    return all(np.array_equal(m, a, equal_nan=True) for m, a in pairs)


def _holds_rule(step) -> bool:
    if step.rule is not None:
        return not step.rule.from_jax
    return step.eqn is not None and any(map(_users_rules, bodies(step.eqn)))


def _passed(step) -> bool:
    """A cotangent came in, and a leaf is behind."""
    arrived = [v.cotangent for v in step.outs if v.cotangent is not None]
    return any(v.active for v in step.ins) and any(np.any(bar) for bar in arrived)


def _behind_a_branch(jaxpr) -> bool:
    return any(
        (eqn.primitive.name == "cond" and _users_rules(body)) or _behind_a_branch(body)
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
        for body in bodies(eqn)
    )


def _users_rules(jaxpr) -> bool:
    return any(not rule.from_jax for rule in find_rules(jaxpr))
