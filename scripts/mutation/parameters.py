"""Other axes, permutations, starts, directions and powers than an equation has."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

Eqn = Any


def alternatives(eqn: Eqn) -> Iterator[dict[str, Any]]:
    """Parameters in place of some of the equation's, in a fixed order."""
    name, params = eqn.primitive.name, eqn.params
    rank = eqn.invars[0].aval.ndim if eqn.invars else 0
    if "axes" in params and isinstance(params["axes"], tuple):
        yield from _others("axes", params, rank, itertools.combinations)
    elif name == "transpose":
        yield from _others("permutation", params, rank, itertools.permutations)
    elif name == "broadcast_in_dim":
        rank = len(params["shape"])
        yield from _others("broadcast_dimensions", params, rank, itertools.combinations)
    elif name in ("cumsum", "cumprod", "cummax", "cumlogsumexp", "scan"):
        yield {"reverse": not params["reverse"]}
        if "axis" in params:
            yield from ({"axis": k} for k in range(rank) if k != params["axis"])
    elif name == "integer_pow":
        yield from ({"y": params["y"] + step} for step in (1, -1))
    elif name == "slice":
        start, limit = params["start_indices"], params["limit_indices"]
        for axis, step in itertools.product(range(rank), (1, -1)):
            shift = step * np.eye(rank, dtype=int)[axis]
            moved = [tuple(map(int, np.add(x, shift))) for x in (start, limit)]
            if min(moved[0]) >= 0 and np.all(moved[1] <= eqn.invars[0].aval.shape):
                yield {"start_indices": moved[0], "limit_indices": moved[1]}
    elif name == "dot_general":
        (left, right), batch = params["dimension_numbers"]
        if len(left) == 1 and not batch[0]:
            ranks = [v.aval.ndim for v in eqn.invars]
            for i, j in itertools.product(*map(range, ranks)):
                if (i, j) != (left[0], right[0]):
                    yield {"dimension_numbers": (((i,), (j,)), batch)}


def _others(name, params, rank, arrangements) -> Iterator[dict[str, Any]]:
    for other in itertools.islice(arrangements(range(rank), len(params[name])), 6):
        if other != tuple(params[name]):
            yield {name: other}
