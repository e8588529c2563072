"""Circuits of gates: one sigmoid unit, the gate circuit, three gates.

Elementwise: every argument is one shape, and each element is a circuit of its own.
"""

import jax
from jax.ad_checkpoint import checkpoint_name as wire
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp import ops
from jaxbp._errors import as_floats, check_shapes


def sigmoid_unit(a: ArrayLike) -> Float[Array, "*n"]:
    r"""One sigmoid unit: $f = \sigma(a)$.

    VJP: $\bar a = \bar f\,\sigma(a)(1 - \sigma(a))$. Wires: `f`.

    Args:
        a: any shape.
    Returns:
        the unit's output. Residuals kept: `a`.
    Raises:
        TypeError: not floating.
    Source: Jasdeep06, "Backpropagation" (2017), first example.
    """
    return _sigmoid_unit(*as_floats("sigmoid_unit", a=a))


@jax.custom_vjp
def _sigmoid_unit(a):
    return sigmoid_unit_fwd(a)[0]


def sigmoid_unit_fwd(a):
    f, f_res = ops.sigmoid_fwd(a)
    return wire(f, "f"), f_res


def sigmoid_unit_bwd(f_res, f_bar):
    f_bar = wire(f_bar, "f_bar")
    (a_bar,) = ops.sigmoid_bwd(f_res, f_bar)
    return (a_bar,)


_sigmoid_unit.defvjp(sigmoid_unit_fwd, sigmoid_unit_bwd)


def gate_circuit(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Float[Array, "*n"]:
    r"""Sum, then product: $q = x + y$, $f = qz$.

    VJP: $\bar q = z\bar f$, $\bar z = q\bar f$, $\bar x = \bar y = \bar q$.
    Wires: `q`, `f`.

    Args:
        x: any shape `*n`.
        y: the same shape and dtype.
        z: the same shape and dtype.
    Returns:
        the circuit's output. Residuals kept: `q`, `z`.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of more than one dtype.
    Source: Choudhary, "A friendly Introduction to Backpropagation in Python".
    """
    x, y, z = as_floats("gate_circuit", x=x, y=y, z=z)
    check_shapes("gate_circuit", "x (*n), y (*n), z (*n)", x=x, y=y, z=z)
    return _gate_circuit(x, y, z)


@jax.custom_vjp
def _gate_circuit(x, y, z):
    return gate_circuit_fwd(x, y, z)[0]


def gate_circuit_fwd(x, y, z):
    q, q_res = ops.add_fwd(x, y)
    f, f_res = ops.multiply_fwd(wire(q, "q"), z)
    return wire(f, "f"), (q_res, f_res)


def gate_circuit_bwd(res, f_bar):
    q_res, f_res = res
    f_bar = wire(f_bar, "f_bar")
    q_bar, z_bar = ops.multiply_bwd(f_res, f_bar)
    q_bar = wire(q_bar, "q_bar")
    x_bar, y_bar = ops.add_bwd(q_res, q_bar)
    return x_bar, y_bar, z_bar


_gate_circuit.defvjp(gate_circuit_fwd, gate_circuit_bwd)


def three_gates(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Float[Array, "*n"]:
    r"""Sum, product, sigmoid: $d = a + b$, $e = cd$, $f = \sigma(e)$.

    VJP: $\bar e = \bar f\,\sigma(e)(1-\sigma(e))$, $\bar d = c\bar e$,
    $\bar c = d\bar e$, $\bar a = \bar b = \bar d$. Wires: `d`, `e`, `f`.

    Args:
        a: any shape `*n`.
        b: the same shape and dtype.
        c: the same shape and dtype.
    Returns:
        the circuit's output. Residuals kept: `c`, `d`, `e`.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of more than one dtype.
    Source: Jasdeep06, "Backpropagation" (2017), second example.
    """
    a, b, c = as_floats("three_gates", a=a, b=b, c=c)
    check_shapes("three_gates", "a (*n), b (*n), c (*n)", a=a, b=b, c=c)
    return _three_gates(a, b, c)


@jax.custom_vjp
def _three_gates(a, b, c):
    return three_gates_fwd(a, b, c)[0]


def three_gates_fwd(a, b, c):
    d, d_res = ops.add_fwd(a, b)
    e, e_res = ops.multiply_fwd(c, wire(d, "d"))
    f, f_res = ops.sigmoid_fwd(wire(e, "e"))
    return wire(f, "f"), (d_res, e_res, f_res)


def three_gates_bwd(res, f_bar):
    d_res, e_res, f_res = res
    f_bar = wire(f_bar, "f_bar")
    (e_bar,) = ops.sigmoid_bwd(f_res, f_bar)
    e_bar = wire(e_bar, "e_bar")
    c_bar, d_bar = ops.multiply_bwd(e_res, e_bar)
    d_bar = wire(d_bar, "d_bar")
    a_bar, b_bar = ops.add_bwd(d_res, d_bar)
    return a_bar, b_bar, c_bar


_three_gates.defvjp(three_gates_fwd, three_gates_bwd)
