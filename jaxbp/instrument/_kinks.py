"""At a kink: which gradients are a choice, and which are none."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxbp.instrument._answers import Answers
from jaxbp.instrument._comparison import Finding
from jaxbp.instrument._judge import Numeric, sides
from jaxbp.instrument._numeric import secants
from jaxbp.instrument._parts import from_parts, parts, slopes

_UNEVEN = 4  # lines along which those that tie move at different speeds
_AROUND = 32  # points around a kink: of five that tie, each is first in some
_NO_SUBGRADIENT: dict[str, Any] = {
    "verdict": "wrong",
    "kind": "",
    "message": "at a kink, but no subgradient: along a line it is too steep",
}

# By leaf the probe at which M and A differ, by how much in every element, a note.
Differing = dict[int, tuple[int, np.ndarray, str]]


def with_points_around(answers: Answers, c: int, k: int, numeric: Numeric) -> Numeric:
    """The answer at probe c, leaf k; where f may bend, with gradients around in it.

    Where more than two tie for a median, say, it bends along no axis: each of them may
    move alone and change nothing.
    """
    program, near, unit = answers.program, [], answers.unit
    m, a = (side[c].cotangents[k] for side in (answers.manual, answers.auto))
    bent = numeric.bent(unit).any()
    if program.is_large or not (bent or "wrong" in sides(m, a, numeric, unit)):
        return numeric
    if answers.refused:  # there is no gradient of points around to ask for
        return numeric.doubtful(slopes(m).ravel()[numeric.elements], unit)
    rng = np.random.default_rng((answers.seed, 2))
    for _ in range(_AROUND):
        leaves = [_nudged(x, rng) for x in answers.leaves]
        inputs = program.auto.moved(answers.inputs, leaves)
        auto = program.ask(inputs, answers.probes[c])[1].cotangents[k]
        near.append(slopes(auto).ravel()[numeric.elements])
    return numeric.beside(np.asarray(near), unit)


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
    not: a maximum's gradient sums to 1. A line that tells against autodiff as well
    tells nothing: no gradient gives a median's slope along all of them. `multiples` are
    those of the leaves.
    """
    rng = np.random.default_rng(answers.seed)
    steep = functools.partial(_too_steep, answers, c, multiples, rng)
    ones = lambda multiple: np.ones(multiple.shape)
    differing = lambda multiple: (multiple > 0) * ones(multiple)
    uneven = lambda multiple: (
        differing(multiple) * rng.uniform(0.5, 1.5, multiple.shape)
    )
    for draw in (differing, ones):  # those that agree may tie with those that do not
        manual, auto = steep(draw)
        if manual and not auto:
            return False
    # Along one of them autodiff's choice may be the right one by chance.
    manual, auto = zip(*(steep(uneven) for _ in range(_UNEVEN)), strict=True)
    return any(auto) or not any(manual)


def _too_steep(answers: Answers, c: int, multiples, rng, draw) -> tuple[bool, bool]:
    """Whether M and A are impossible along a line; never where f bends along it too."""
    directions = [np.zeros_like(x) for x in answers.leaves]
    scale = max(_largest(answers.leaves[k]) for k in multiples) or 1.0
    slopes_along = np.zeros(2)
    for k, multiple in multiples.items():
        turned = np.exp(2j * np.pi * rng.random())
        by = turned if np.iscomplexobj(directions[k]) else 1.0
        directions[k] = scale * draw(multiple) * by
        for side, witness in enumerate((answers.manual, answers.auto)):
            with np.errstate(all="ignore"):  # a slope that is infinite in one element
                terms = witness[c].cotangents[k] * directions[k]
                slopes_along[side] += np.sum(terms).real
    context = (answers.inputs, answers.probes[c], directions)
    s = secants(answers.program.along, context, [np.zeros(())])
    low, high = sorted((s.left[0], s.right[0]))
    slack = 4 * (s.left_error[0] + s.right_error[0])
    manual, auto = (slopes_along < low - slack) | (slopes_along > high + slack)
    smooth = high - low <= slack
    return bool(smooth and manual), bool(smooth and auto)


def _nudged(x, rng) -> np.ndarray:
    """A leaf moved by a millionth of its size: ties come apart, and little else."""
    size = _largest(x) or 1.0
    moves = rng.standard_normal(parts(x).shape)
    return np.asarray(x) + 1e-6 * size * from_parts(moves, x)


def _largest(x) -> float:
    x = np.abs(np.asarray(x))
    return float(np.max(x, initial=0.0, where=np.isfinite(x)))
