"""effort="full": where it asks, where it does not, and that both are said."""

import jax
import jax.numpy as jnp
import numpy as np
from hand_written import rule

from jaxbp import compare
from jaxbp.instrument._boundaries import boundaries, sentinels
from jaxbp.instrument._points import points
from jaxbp.instrument._variants import other_lengths, too_large

X = jax.random.normal(jax.random.key(0), (4, 3))


def test_boundaries_are_read_from_the_program():
    def f(x):
        return jax.jit(lambda x: jnp.where(x > 2.5, x, jnp.clip(x, -7.0, 2.0)))(x)

    found = boundaries(jax.make_jaxpr(f)(X))
    assert {2.5, -7.0, 2.0} <= set(found)


def test_an_index_out_of_range_is_asked_where_its_author_says_what_it_means():
    x, i = jnp.arange(5.0), jnp.array([0, 3])

    def beyond(f):
        return [s.mark for s in sentinels(jax.make_jaxpr(f)(x, i)) if s.mark > 1000]

    assert beyond(lambda x, i: x.at[i].get(mode="clip")) == [2**30]
    assert beyond(lambda x, i: x.at[i].get(mode="fill", fill_value=0)) == [2**30]
    # vmap makes a gather of a slice, one that clips; nor does JAX's own choice count.
    assert not beyond(lambda x, i: jax.vmap(lambda k: x[k])(i))
    assert not beyond(lambda x, i: jax.vmap(jax.jit(lambda k: x[k]))(i))
    assert not beyond(lambda x, i: x[i])
    # In a pullback it is JAX's transpose of a sum that fills in.
    added = lambda x: jax.ops.segment_sum(x[:2], i, 5)
    back = jax.make_jaxpr(lambda g: jax.vjp(added, x)[1](g))(x)
    assert not sentinels(jax.make_jaxpr(added)(x), back)


def test_points_keep_what_an_array_evidently_is():
    probabilities = jax.nn.softmax(X)
    flags = jnp.array([0.0, 1.0, 1.0], X.dtype)
    symmetric = X.T @ X
    inputs = [probabilities, flags, symmetric]
    for point in points(inputs, [0.5], [], seed=0):
        p, f, s = map(np.asarray, point.inputs)
        if "inf" in point.name:
            continue
        assert np.allclose(p.sum(-1), 1, atol=1e-6)
        assert point.name == "between zeros and ones" or set(np.unique(f)) <= {0, 1}
        assert np.array_equal(s, s.T)


def test_one_number_everywhere_is_no_symmetric_matrix_and_what_is_kept_is_said():
    def product(x, w):
        return x @ w

    forgetful = rule(product, lambda res, g: (g @ res[1], res[0].T @ g))
    for w in (jnp.ones((3, 3)), jnp.zeros((3, 3))):
        assert compare(forgetful, X, w.astype(X.dtype)).verdict == "wrong"
    symmetric = X.T @ X
    kept = compare(forgetful, X, symmetric)
    assert kept.ok
    assert kept.note == "asked as what they seem to be: [1] a symmetric matrix"
    right = rule(product, lambda res, g: (g @ res[1].T, res[0].T @ g))
    assert compare(right, X, X[:3, :3]).note == ""


def test_lengths_change_together_wherever_they_occur():
    variants = list(other_lengths((X, jnp.ones(3)), {}))
    shapes = {tuple(np.shape(leaf) for leaf in v.args) for v in variants}
    assert ((4, 1), (1,)) in shapes
    assert ((1, 3), (3,)) in shapes
    assert ((9, 7), (7,)) in shapes
    assert ((4, 6), (3,)) in shapes  # in one array alone


def test_what_is_left_out_is_said():
    tall = np.broadcast_to(np.float32(0), (2**20, 3))
    longer = ["axes of 3 made 4", "axes of 1048576 made 1048577"]
    assert too_large((tall,), {}) == ["all axes of other lengths", *longer]
    assert not too_large((X,), {})
    f = rule(jnp.sin, lambda x, g: (g * jnp.cos(x),))

    def long(x):
        for _ in range(120):
            x = f(x) * jnp.cos(x)
        return x

    assert "a large program, asked at no other point" in compare(long, X[0]).note
    assert "a large program" not in compare(f, X[0]).note


def test_a_finding_elsewhere_holds_the_arguments_to_ask_again():
    def bwd(res, y_bar):
        p, x = res
        ties = (x * p["w"] == jnp.max(x * p["w"])).astype(x.dtype)
        return {"w": y_bar * ties * x}, y_bar * ties * p["w"]

    f = rule(lambda p, x: jnp.max(x * p["w"]), bwd)
    x = jnp.array([0.3, -1.2, 2.0])
    found = compare(f, {"w": x + 3}, x)
    (first, _), told = found.findings, str(found).splitlines()
    assert first.verdict == "wrong"
    assert first.message.startswith("all elements equal")
    assert "  to ask there: args, kwargs = comparison.findings[0].point" in told
    args, kwargs = first.point
    again = compare(f, *args, kwargs=kwargs).findings[0]
    assert (again.verdict, again.point) == ("wrong", None)
    listed = found.to_dict()["findings"][0]["point"]
    assert listed["[1]"]["value"] == args[1].tolist()
    assert (
        compare(rule(jnp.sin, lambda x, y_bar: (y_bar,)), x).findings[0].point is None
    )
