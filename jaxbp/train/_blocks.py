"""Blocks of steps that nobody looks into, where a look costs as much as a step.

On a CPU the call of a kernel costs what a small network's layer does. There a block is
run without asking after every step whether to stop. Whether it should have is seen at
its end, in the losses and in the arrays that keep what is not finite; then the block is
given up, and its steps are made again one by one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Literal, jaxpr_as_fun

from jaxbp._interpret import equations, interpret, unseen
from jaxbp._jaxpr import bodies, is_call, live
from jaxbp.train._mesh import Layout

_UNROLLED = 4  # steps in one turn of a block's loop, whose own kernels are then few
_LEAST, _MOST = 32, 512  # steps in a block
_BYTES = 1 << 16  # of a carry: beyond, kernels take longer than their calls
_EQUATIONS = 300  # of a step, which is compiled several times over


class Blocks(NamedTuple):
    """Of how many steps, which leaves of (masters, opt_state) are looked at.

    `move(arrays, carry)` makes a step whatever comes of it.
    """

    steps: int
    kept: list[int]
    move: Callable[[Any, Any], Any]
    is_low: Callable[[jax.Array], jax.Array]

    def are_calm(self, carry: Any, seen: jax.Array) -> jax.Array:
        """Whether the losses, added up, all gradients and parameters were finite."""
        leaves = jax.tree.leaves((carry.masters, carry.opt_state))
        kept = {*self.kept, *range(len(jax.tree.leaves(carry.masters)))}
        return finite([seen, *(leaves[k] for k in sorted(kept))])

    def leap(self, arrays: Any, carry: Any, until: jax.Array) -> Any:
        """The carry a block on; as it was where there is no room or it went wrong."""

        def turn(_, both):
            carry, seen = both
            for _ in range(_UNROLLED):
                carry = self.move(arrays, carry)
                seen += jnp.where(self.is_low(carry.loss), jnp.nan, carry.loss)
            return carry, seen

        def tried(carry):
            begun = carry, jnp.zeros_like(carry.loss)
            moved, seen = jax.lax.fori_loop(0, self.steps // _UNROLLED, turn, begun)
            calm = self.are_calm(moved, seen)
            return jax.lax.cond(calm, lambda: moved, lambda: carry)

        if not self.steps:
            return carry
        fits = carry.step + self.steps <= until
        return jax.lax.cond(fits, tried, lambda carry: carry, carry)


def blocks_for(
    made: Callable[..., Any],
    is_low: Callable[[jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    log_every: int,
    arrays: Any,
    carry: Any,
    layout: Layout,
) -> Blocks | None:
    """Blocks that end with the entries, for a run that is the faster for them.

    Whether there are any does not depend on `log_every`: a run's bits shall not.
    """
    (device,) = {d.platform for d in carry.step.devices()}
    alone = layout.shardings(carry) is None and device == "cpu"
    if not alone or carry.apart.size or not _is_small(made, arrays, carry):
        return None
    kept = keepers(optimizer, carry.masters, carry.opt_state)
    if kept is None:
        return None

    def moved(arrays, carry):
        # Counting takes a kernel, too: it is left to the caller.
        return made(arrays, carry)[0]._replace(step=carry.step, apart=carry.apart)

    alike = _compiled_apart(moved, arrays, carry)

    def move(arrays, carry):
        return alike(arrays, carry)._replace(step=carry.step + 1)

    return Blocks(_length(log_every), kept, move, is_low)


def _compiled_apart(f: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """A function without loops as one call, into which XLA fuses nothing.

    So its numbers are rounded alike in the middle of a block and alone. What it hands
    on as it was given, or does not read, is no part of the call.
    """
    program, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)

    def inlined(*leaves):
        return interpret(program, leaves, unseen)

    flat = jax.make_jaxpr(inlined)(*leaves)
    place = {v: k for k, v in enumerate(flat.jaxpr.invars)}

    def places(atoms):
        return [None if isinstance(v, Literal) else place.get(v) for v in atoms]

    reads = (k for eqn in live(flat).eqns for k in places(eqn.invars))
    used = sorted({k for k in reads if k is not None})
    given = places(flat.jaxpr.outvars)

    @jax.jit
    def made(read):
        values = [read.get(k, x) for k, x in enumerate(leaves)]
        outs = jaxpr_as_fun(flat)(*values)
        return [out for out, k in zip(outs, given, strict=True) if k is None]

    def call(*args):
        leaves = jax.tree.leaves(args)
        with set_xla_metadata(inlineable="false"):
            new = iter(made({k: leaves[k] for k in used}))
        outs = [next(new) if k is None else leaves[k] for k in given]
        return jax.tree.unflatten(jax.tree.structure(shapes), outs)

    return call


def finite(tree: Any) -> jax.Array:
    """Whether every element is."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, checks)


def _length(log_every: int) -> int:
    """Whole turns, as many as fill what lies between two entries."""
    parts = -(-log_every // _MOST)
    steps = log_every // parts // _UNROLLED * _UNROLLED
    return steps if steps >= _LEAST else 0


def _is_small(made: Callable[..., Any], arrays: Any, carry: Any) -> bool:
    """Whether the calls of its kernels are what a step's time goes to.

    One with loops is not: what a loop does once a number is none, nobody knows.
    """
    if sum(x.nbytes for x in jax.tree.leaves(carry)) > _BYTES:
        return False
    program = live(jax.make_jaxpr(made)(arrays, carry))
    names = [eqn.primitive.name for _, eqn, _ in equations(program)]
    return len(names) <= _EQUATIONS and not {"while", "scan"} & set(names)


def keepers(
    optimizer: optax.GradientTransformation, masters: Any, opt_state: Any
) -> list[int] | None:
    """Which leaves of (masters, opt_state) tell that a gradient was once not finite.

    Each gradient's elements are, by sums and products with anything, in those of such
    a leaf, and a leaf's own in the next step's. None where there is none for some
    gradient: an optimiser that clips, or lets parameters be.
    """

    def update(moved, grads):
        masters, opt_state = moved
        updates, opt_state = optimizer.update(grads, opt_state, masters)
        return optax.apply_updates(masters, updates), opt_state

    program = jax.make_jaxpr(update)((masters, opt_state), masters)
    count = len(program.out_avals)
    inputs = range(len(program.in_avals))
    reached = [_reached(program, [k == j for k in inputs]) for j in inputs]
    lasting = [k for k in range(count) if reached[k][k]]
    found = [[k for k in lasting if outs[k]] for outs in reached[count:]]
    return sorted({ks[0] for ks in found}) if all(found) else None


_ANY = {"add", "add_any", "sub", "neg", "mul", "copy", "square", "convert_element_type"}


def _reached(jaxpr: Any, given: Sequence[bool]) -> list[bool]:
    """The outputs that are not finite wherever the given inputs are not."""
    marked = {v for v, g in zip(jaxpr.invars, given, strict=True) if g}

    def is_marked(atom) -> bool:
        return not isinstance(atom, Literal) and atom in marked

    for eqn in jaxpr.eqns:
        ins = [is_marked(v) for v in eqn.invars]
        if is_call(eqn):
            (body,) = bodies(eqn)
            outs = _reached(body, ins)
        else:
            outs = [_goes_through(eqn, ins)] * len(eqn.outvars)
        marked |= {v for v, out in zip(eqn.outvars, outs, strict=True) if out}
    return [is_marked(v) for v in jaxpr.outvars]


def _goes_through(eqn: Any, ins: Sequence[bool]) -> bool:
    """Whether each element of the output has one that is not finite among its terms.

    Infinity less infinity, or times zero, is no number: still not finite. A quotient
    is not where its numerator is not; a choice, where all that it is made of are not.
    """
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    same = [
        given and v.aval.shape == out.shape
        for given, v in zip(ins, eqn.invars, strict=True)
    ]
    if not jnp.issubdtype(out.dtype, jnp.floating) or jnp.finfo(out.dtype).bits < 16:
        return False
    if name == "integer_pow":
        return same[0] and eqn.params["y"] > 0
    if name == "select_n":
        return all(same[1:])
    if name == "div":
        return same[0]
    return name in _ANY and any(same)
