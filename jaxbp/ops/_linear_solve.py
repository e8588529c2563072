"""The solution of linear equations, by factors that serve both passes."""

import functools

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def linear_solve(
    a: Float[Array, "*n m m"],
    b: Float[Array, "*n m r"],
    *,
    positive_definite: bool = False,
) -> Float[Array, "*n m r"]:
    r"""Linear equations: $x = A^{-1}b$.

    VJP: $\bar b = A^{-\top}\bar x$, by the same factors, and
    $\bar A = -\bar b x^\top$, summed over the right-hand sides. Positive definite:
    the equations are $\frac12(A + A^\top)x = b$, and $\bar A$ is symmetric too.

    Args:
        a: A, any leading axes.
        b: right-hand sides in its columns, or one of them: then it is of shape
            (*n, m), and so is x.
        positive_definite: A's symmetric part is positive definite: half the
            multiplications, by Cholesky's factor in place of L and U.
    Returns:
        x. Nothing is raised for a singular A, x is not finite there, nor where A was to
        be positive definite and is not; both lose as many digits as A's condition has.
        Residuals kept: the factors (with LU, also the order of its rows), and x.
    Raises:
        ValueError: the axes do not chain.
        TypeError: not floating, or of two dtypes.
    Source: Giles, "An extended collection of matrix derivative results" (2008), sec. 2.
    """
    a, b = as_floats("linear_solve", a=a, b=b)
    vector = b.ndim == a.ndim - 1
    expected = "a (*n, m, m), b (*n, m)" if vector else "a (*n, m, m), b (*n, m, r)"
    check_shapes("linear_solve", expected, a=a, b=b)
    a, b = alike(a, b)
    return _linear_solve(a, b, bool(positive_definite))


@functools.partial(jax.custom_vjp, nondiff_argnames=("positive_definite",))
def _linear_solve(a, b, positive_definite):
    return linear_solve_fwd(a, b, positive_definite)[0]


def linear_solve_fwd(a, b, positive_definite):
    factors = _cholesky(a) if positive_definite else _lu(a)
    x = _solved(factors, b, transposed=False)
    return x, (factors, x)


def linear_solve_bwd(positive_definite, res, x_bar):
    factors, x = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, x_bar)
    b_bar = _solved(factors, x_bar, transposed=True)
    columns = x[..., None] if x.ndim == factors[0].ndim - 1 else x
    a_bar = -b_bar.reshape(columns.shape) @ jnp.matrix_transpose(columns)
    if positive_definite:
        a_bar = (a_bar + jnp.matrix_transpose(a_bar)) / 2
    return a_bar.astype(x.dtype), b_bar


_linear_solve.defvjp(linear_solve_fwd, linear_solve_bwd)


def _wide(x):
    return x.astype(accumulator(x.dtype))


def _lu(a):
    """L and U in one matrix, and the rows of `a` that are those of LU."""
    lu, _, rows = jax.lax.linalg.lu(_wide(a))
    return lu, rows


def _cholesky(a):
    a = _wide(a)
    lower = jax.lax.linalg.cholesky(
        (a + jnp.matrix_transpose(a)) / 2, symmetrize_input=False
    )
    return (lower,)


def _solved(factors, b, *, transposed):
    """`a x = b`, or with the transpose of `a`, given the factors."""
    matrix, *rows = factors
    x = _wide(b if b.ndim == matrix.ndim else b[..., None])
    solve = functools.partial(jax.lax.linalg.triangular_solve, matrix, left_side=True)
    lower = functools.partial(solve, lower=True)
    if not rows:
        x = lower(lower(x), transpose_a=True)
    elif transposed:
        x = solve(x, lower=False, transpose_a=True)
        x = lower(x, unit_diagonal=True, transpose_a=True)
        x = jnp.take_along_axis(x, jnp.argsort(rows[0])[..., None], axis=-2)
    else:
        x = jnp.take_along_axis(x, rows[0][..., None], axis=-2)
        x = solve(lower(x, unit_diagonal=True), lower=False)
    return x.reshape(b.shape).astype(b.dtype)


def _plain_positive(a, b):
    factor = jnp.linalg.cholesky((a + a.mT) / 2), True
    columns = b if b.ndim == a.ndim else b[..., None]
    return jax.scipy.linalg.cho_solve(factor, columns).reshape(b.shape)


def _plain(a, b):
    return jnp.linalg.solve(a, b if b.ndim == a.ndim else b[..., None]).reshape(b.shape)


def _regular(a):
    return a + 3 * jnp.eye(a.shape[-1], dtype=a.dtype)


def _definite(a):
    m = a.shape[-1]
    return a @ a.mT / max(1, m) + jnp.eye(m, dtype=a.dtype)


def _at(lead, m, *right, of=_regular):
    return then(normal((*lead, m, m), (*lead, m, *right)), of, None)


_hilbert = [[1 / (1 + i + j) for j in range(4)] for i in range(4)]  # condition 2e4
_pivoting = [[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [3.0, 1.0, 0.0]]
_cost = lambda of: {
    "512, 64 right-hand sides": _at((), 512, 64, of=of),
    "256 of 32, one right-hand side": _at((256,), 32, of=of),
}
_source = "Giles (2008), sec. 2"
CASES = (
    Case(
        linear_solve,
        _plain,
        {
            "ordinary": _at((2,), 3, 2),
            "one right-hand side": _at((2,), 3),
            "no leading axis": _at((), 3),
            "of one equation": _at((2,), 1, 2),
            "rows in another order": points(_pivoting, [1.0, -2.0, 0.5]),
            "ill-conditioned": points(_hilbert, [1.0, 0.0, 0.0, -1.0]),
            "empty batch": _at((0,), 3, 2),
            "no right-hand side": _at((2,), 2, 0),
        },
        _cost(_regular),
        _source,
        18 + 6 + 12,
        why="JAX's own solve has this rule too; A's derivative is one product in it",
    ),
    Case(
        functools.partial(linear_solve, positive_definite=True),
        _plain_positive,
        {
            "ordinary": _at((2,), 3, 2, of=_definite),
            "one right-hand side": _at((2,), 3, of=_definite),
            "ill-conditioned": points(_hilbert, [1.0, 0.0, 0.0, -1.0]),
            "empty batch": _at((0,), 3, 2, of=_definite),
        },
        _cost(_definite),
        _source,
        18 + 12,
        variant="positive definite",
    ),
)
