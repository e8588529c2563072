"""Wrong rules of the kinds that people really write, and right ones that look wrong.

Each is `(primal, bwd, args, blamed)`: residuals are the arguments, or the argument
where there is one; `blamed` is the leaf whose gradient is wrong, None of a right rule.
A file holds one kind of mistake, with the right rules that resemble it.
"""

from . import (
    cotangents,
    elementwise,
    loops,
    normalisations,
    products,
    selections,
    ties,
)

_KINDS = elementwise, cotangents, products, normalisations, selections, ties, loops


def _collected(tables):
    rules = [rule for table in tables for rule in table.items()]
    assert len(dict(rules)) == len(rules), "a name is given twice"
    return dict(rules)


WRONG = _collected(kind.WRONG for kind in _KINDS)
RIGHT = _collected(kind.RIGHT for kind in _KINDS)
