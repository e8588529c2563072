"""At a kink: which gradients are a choice, and which are none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxbp.instrument._answers import Answers
from jaxbp.instrument._comparison import Finding
from jaxbp.instrument._judge import Numeric
from jaxbp.instrument._numeric import secants
from jaxbp.instrument._parts import from_parts, parts, slopes

_AROUND = 32  # points around a kink: of five that tie, each is first in some
_NO_SUBGRADIENT: dict[str, Any] = {
    "verdict": "wrong",
    "kind": "",
    "message": "at a kink, but no subgradient: along a line it is too steep",
}

# By leaf the probe at which M and A differ, by how much in every element, a note.
Differing = dict[int, tuple[int, np.ndarray, str]]


def with_points_around(answers: Answers, c: int, k: int, numeric: Numeric) -> Numeric:
    """The answer at probe c, leaf k; where f bends, with gradients around in it."""
    program, near = answers.program, []
    if program.is_large or not numeric.bent(answers.unit).any():
        return numeric
    if answers.refused:  # there is no gradient of points around to ask for
        m = slopes(answers.manual[c].cotangents[k]).ravel()[numeric.elements]
        return numeric.doubtful(m, answers.unit)
    rng = np.random.default_rng((answers.seed, 2))
    for _ in range(_AROUND):
        leaves = [_nudged(x, rng) for x in answers.leaves]
        inputs = program.auto.moved(answers.inputs, leaves)
        auto = program.ask(inputs, answers.probes[c])[1].cotangents[k]
        near.append(slopes(auto).ravel()[numeric.elements])
    return numeric.beside(np.asarray(near), answers.unit)


def held_to_lines(
    answers: Answers, found: list[Finding], differing: Differing
) -> list[Finding]:
    """The findings; `wrong` in place of a `kink` that is no subgradient.

    Each leaf is held by itself, then those that tie with one another together: each
    may have a derivative of its own choice, all at once may not.
    """
    places = {path: k for k, path in enumerate(answers.paths)}
    kinks = [places[f.argument] for f in found if f.verdict == "kink"]
    steep: list[int] = []

    def hold(c, leaves):
        multiples = {k: differing[k][1] for k in leaves}
        if multiples and not _is_subgradient(answers, c, multiples):
            steep.extend(leaves)

    for k in kinks:
        hold(differing[k][0], [k])
    for c in {differing[k][0] for k in kinks}:
        tied = [k for k in kinks if k not in steep and differing[k][0] == c]
        if len(tied) > 1:
            hold(c, tied)
    return [
        dataclasses.replace(f, **_NO_SUBGRADIENT)
        if places.get(f.argument) in steep
        else f
        for f in found
    ]


def _is_subgradient(
    answers: Answers, c: int, multiples: Mapping[int, np.ndarray]
) -> bool:
    """Whether M is possible along lines through all differing elements at once.

    At a tie every element may have a derivative of its own choice, all together may
    not: a maximum's gradient sums to 1. `multiples` are those of the leaves.
    """
    scale = max(_largest(answers.leaves[k]) for k in multiples) or 1.0
    rng = np.random.default_rng(answers.seed)
    ones = lambda multiple: np.ones(multiple.shape)
    for draw in (
        lambda multiple: (multiple > 0) * ones(multiple),
        lambda multiple: (multiple > 0) * rng.uniform(0.5, 1.5, multiple.shape),
        ones,  # those that agree may tie with those that do not
    ):
        directions = [np.zeros_like(x) for x in answers.leaves]
        slope = 0.0
        for k, multiple in multiples.items():
            turned = np.exp(2j * np.pi * rng.random())
            by = turned if np.iscomplexobj(directions[k]) else 1.0
            directions[k] = scale * draw(multiple) * by
            slope += np.sum(answers.manual[c].cotangents[k] * directions[k]).real
        context = (answers.inputs, answers.probes[c], directions)
        s = secants(answers.program.along, context, [np.zeros(())])
        low, high = sorted((s.left[0], s.right[0]))
        slack = 4 * (s.left_error[0] + s.right_error[0])
        # Where f bends along the line as well, elements may bend either way.
        smooth = high - low <= slack
        if smooth and not low - slack <= slope <= high + slack:
            return False
    return True


def _nudged(x, rng) -> np.ndarray:
    """A leaf moved by a millionth of its size: ties come apart, and little else."""
    size = _largest(x) or 1.0
    moves = rng.standard_normal(parts(x).shape)
    return np.asarray(x) + 1e-6 * size * from_parts(moves, x)


def _largest(x) -> float:
    x = np.abs(np.asarray(x))
    return float(np.max(x, initial=0.0, where=np.isfinite(x)))
