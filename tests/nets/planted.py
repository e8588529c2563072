"""Wrong links, planted in a network's chain, and what tells which leaves they spoil."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import ops
from jaxbp.instrument import _by_numpy


def plant(monkeypatch, rule, call, wrong):
    """`wrong(res, y_bar, bars)` in place of one call of an op's backward rule.

    `call` is (k, of): the k-th of the `of` calls that each run of the chain makes.
    """
    k, of = call
    right, calls = getattr(ops, rule), itertools.count()

    def faulty(*args):
        bars = right(*args)
        return wrong(*args[-2:], bars) if next(calls) % of == k else bars

    monkeypatch.setattr(ops, rule, faulty)


def factor(position):
    return _one("factor", position, lambda b: 2 * b)


def sign(position):
    return _one("sign", position, lambda b: -b)


def missing_path(position):
    return _one("missing path", position, jnp.zeros_like)


def _one(name, position, change):
    """`change` of one of the bars."""

    def wrong(res, y_bar, bars):
        bars = list(bars)
        bars[position] = change(bars[position])
        return tuple(bars)

    wrong.__name__ = name
    return wrong


def transposed(res, y_bar, bars):
    return y_bar @ res[1], *bars[1:]


def gradients(f, *args):
    """The gradient of a scalar function by key path, run by NumPy: none compiles."""
    every = tuple(range(len(args)))
    pull = jax.grad(f, every, allow_int=True)
    bars = evaluated(
        lambda *args: [b for b in jax.tree.leaves(pull(*args)) if _is_floating(b)],
        *args,
    )
    paths = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(args)
        if _is_floating(leaf)
    ]
    return dict(zip(paths, bars, strict=True))


def evaluated(f, *args):
    """The arrays of `f(*args)`, in a list, run by NumPy."""
    jaxpr, leaves = jax.make_jaxpr(f)(*args), jax.tree.leaves(args)
    outs = _by_numpy.evaluate(jaxpr, leaves, lambda eqn, ins, outs: outs)
    return list(map(np.asarray, outs))


def differences(hand, auto):
    """By leaf, the largest difference over autodiff's largest element."""
    return {k: np.abs(hand[k] - auto[k]).max() / np.abs(auto[k]).max() for k in auto}


def _is_floating(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
