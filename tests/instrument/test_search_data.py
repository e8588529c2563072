"""Other data than the caller's: flags stay flags, and lists are padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import compare
from jaxbp.instrument._boundaries import numbers

X = jax.random.normal(jax.random.key(0), (4, 3))


def mean_of_valid(x, valid):
    on = valid.astype(x.dtype)
    return (x * x * on).sum(1) / jnp.maximum(on.sum(1), 1)


@pytest.mark.parametrize("valid", [np.ones((4, 3), bool), np.ones((4, 3), int)])
def test_a_mask_is_asked_with_some_flags_off(valid):
    # As many as there are, or as many as count: alike where all or none do.
    def bwd(count):
        def bwd(res, g):
            x, on = res[0], res[1].astype(res[0].dtype)
            return g[:, None] * 2 * x * on / count(on), None

        return bwd

    by_valid = lambda on: jnp.maximum(on.sum(1, keepdims=True), 1)
    assert compare(rule(mean_of_valid, bwd(by_valid)), X, valid).ok
    found = compare(rule(mean_of_valid, bwd(lambda on: on.shape[1])), X, valid)
    assert "some flags off" in found.findings[0].message


@pytest.mark.parametrize("at_least", [1, 0])
def test_a_row_without_a_flag_over_its_count_is_no_number(at_least):
    # Which XLA makes a select of, whose other side is 0.
    def bwd(res, g):
        x, on = res[0], res[1].astype(res[0].dtype)
        share = on / jnp.maximum(on.sum(1, keepdims=True), at_least)
        return g[:, None] * 2 * x * share, None

    found = compare(rule(mean_of_valid, bwd), X, np.ones((4, 3), bool))
    assert found.verdict == ("right" if at_least else "wrong")


def of_events(of_all=False):
    """A mean over events that a whole number counts as one, or as none."""

    def primal(x, event):
        counted = event[::-1].astype(x.dtype)
        return (counted * jnp.sin(x)).sum() / (1 + counted.sum())

    def bwd(res, g):
        x, event = res
        happened = jnp.where(event[::-1] > 0, 1.0, 0.0)
        share = happened / (1 + (x.size if of_all else happened.sum()))
        return g * jnp.cos(x) * share.astype(x.dtype), None

    return rule(primal, bwd)


@pytest.mark.parametrize("event", [[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]])
def test_whole_numbers_that_are_flags_are_asked_as_flags(event):
    args = jnp.linspace(0.1, 1.0, 5), jnp.array(event)
    assert compare(of_events(), *args).ok
    assert compare(of_events(of_all=True), *args).verdict == "wrong"


def test_which_integers_are_reckoned_with():
    x, n = jnp.arange(5.0), jnp.array([1, 0])
    weighed = lambda n: (n[::-1].astype(float) * x[:2]).sum()
    taken = lambda n: x[n]
    labels = lambda n: jax.nn.one_hot(n, 5) @ x
    found = [numbers(jax.make_jaxpr(f)(n)) for f in (weighed, taken, labels)]
    assert found == [{0}, set(), set()]


def of_neighbours(masked):
    """Springs to the neighbours in a list of each row, padded with -1."""

    def primal(x, places):
        apart = x[:, None] - x[places]
        return jnp.where(places >= 0, apart**2, 0.0).sum() / 2

    def bwd(res, g):
        x, places = res
        apart = x[:, None] - x[places]
        force = jnp.where((places >= 0) | (not masked), g * apart, 0.0)
        return force.sum(1).at[places].add(-force), None

    return rule(primal, bwd)


def test_every_row_of_a_list_is_padded():
    # The last row's last neighbour is the first: index -1 would be the row itself.
    ring = (np.arange(5)[:, None] + [-1, 1]) % 5
    args = jnp.array([0.3, 1.1, -0.7, 0.2, 2.0]), jnp.asarray(ring)
    assert compare(of_neighbours(masked=True), *args).ok
    found = compare(of_neighbours(masked=False), *args)
    assert "-1 among the data" in found.findings[0].message
