"""Why a step failed: what is not finite and who made it, or which gradients differ."""

import functools
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbp._autodiff import autodiff
from jaxbp._tape import record
from jaxbp.instrument._noise import rounding_noise
from jaxbp.train._data import Batches
from jaxbp.train._loop import Carry, updated
from jaxbp.train._mesh import Layout, key_data
from jaxbp.train._processes import of_first

_NOISE = 16  # times the spread of 8 draws, as `compare` allows
_CHEAP = 8  # units of roundoff
_BLIND = 0.5  # of a gradient: where rounding explains as much, a mistake hides in it


class Judge:
    """Asked on the host about a step that stopped the loop."""

    def __init__(
        self,
        of: Callable[..., Any],
        slope: Callable[..., Any],
        optimizer: optax.GradientTransformation,
        batches: Batches,
        key: jax.Array,
        paths: Sequence[str],
        both: bool,
        layout: Layout,
    ):
        self._of, self._batches, self._key = of, batches, key
        self._optimizer = optimizer
        self._layout = layout
        self._slope, self._paths, self._both = jax.jit(slope), paths, both

    def __call__(self, carry: Carry) -> tuple[Carry, str]:
        """The carry to go on with and "", or the reason to stop."""
        step = int(carry.step)
        inputs = self._inputs(carry)
        (loss, _), grads, apart = self._layout.whole(self._slope(*inputs))
        inputs = self._layout.whole(inputs)
        if not np.isfinite(loss):
            return (
                carry,
                f"not finite: the loss is {loss} at step {step:,}" + self._made(inputs),
            )
        if (path := self._lost_in(grads)) is not None:
            said = f"not finite: the gradient of params{path} at step {step:,}"
            return carry, said + self._made(inputs)
        # What the loop saw counts as well: compiled with it, a step may be rounded
        # otherwise than here, and one that is let pass must not stop the loop again.
        seen, limit = (
            np.asarray(self._layout.whole(x)) for x in (carry.apart, carry.limit)
        )
        if not (seen > limit).any():
            return carry, self._not_the_gradients(carry, grads)
        apart = np.fmax(apart, seen)
        limit = np.fmax(limit, self._noise(inputs))
        if not (apart > limit).any():
            again = jnp.zeros_like(carry.failed)
            return self._limited(carry, limit)._replace(failed=again), ""
        k = int(np.argmax(np.asarray(apart) / np.maximum(limit, np.finfo("f4").tiny)))
        saved = of_first(lambda: _saved(step, self._paths, *inputs))
        return carry, (
            f"gradients differ at step {step:,}: of params{self._paths[k]} by "
            f"{float(apart[k]):.3g} of its largest element, rounding explains "
            f"{float(limit[k]):.3g}; numpy.load({str(saved)!r}) has all that the loss "
            "was given"
        )

    def _not_the_gradients(self, carry: Carry, grads: Any) -> str:
        """Why a step failed whose loss and gradients are finite here."""
        masters, _ = jax.jit(functools.partial(updated, self._optimizer))(grads, carry)
        step = int(carry.step)
        if (path := self._lost_in(self._layout.whole(masters))) is not None:
            said = "the optimizer's update of a gradient that is finite"
            return f"not finite: params{path} after step {step:,}, by {said}"
        return (
            f"not finite: step {step:,} in the compiled loop, though its loss and "
            "gradients are finite by themselves"
        )

    def _lost_in(self, tree: Any) -> str | None:
        """The path of the first leaf in which a number is not finite."""
        leaves = zip(self._paths, jax.tree.leaves(tree), strict=True)
        return next((path for path, x in leaves if not jnp.isfinite(x).all()), None)

    def allowing(self, carry: Carry) -> Carry:
        """The carry with what rounding explains at its step as the limit."""
        if not self._both:
            return carry
        inputs = self._layout.whole(self._inputs(carry))
        limit = self._noise(inputs)
        if blind := [p for p, x in zip(self._paths, limit, strict=True) if x >= _BLIND]:
            named = ", ".join(f"params{path}" for path in blind)
            warnings.warn(
                f"train.fit: rounding alone explains half of the gradient of {named}: "
                "with gradient='both' hardly any mistake shows there; jaxbp.compare "
                "asks in float64",
                RuntimeWarning,
                stacklevel=4,
            )
        return self._limited(carry, limit)

    def _limited(self, carry: Carry, limit: np.ndarray) -> Carry:
        return carry._replace(limit=self._layout.placed(jnp.asarray(limit)))

    def _inputs(self, carry: Carry):
        batches = self._batches
        batch, _ = jax.jit(batches.draw)(batches.arrays, carry.order, carry.step)
        return (
            carry.masters,
            batch,
            carry.state,
            jax.random.fold_in(self._key, carry.step),
        )

    def _noise(self, inputs) -> np.ndarray:
        """By leaf, over autodiff's largest element: what rounding does to either."""
        masters, *rest = inputs
        leaves, tree = jax.tree.flatten(masters)
        spreads, sizes = [], []
        for of in (self._of, autodiff(self._of)):

            def grads(*leaves, of=of):
                masters = jax.tree.unflatten(tree, leaves)
                found, _ = jax.grad(of, has_aux=True)(masters, *rest)
                return jax.tree.leaves(found)

            noises = rounding_noise(jax.make_jaxpr(grads)(*leaves), leaves, 0)
            spreads.append([_largest(n) for n in noises])
            sizes = [_largest(g) for g in jax.jit(grads)(*leaves)]
        unit = [float(jnp.finfo(x.dtype).eps) for x in leaves]
        spread, size = np.max(spreads, axis=0), np.asarray(sizes)
        with np.errstate(all="ignore"):
            noise = np.where(size > 0, _NOISE * spread / size, 0)
        return (noise + _CHEAP * np.asarray(unit)).astype(np.float32)

    def _made(self, inputs) -> str:
        """The equation that made the first number that is none."""
        masters, *rest = inputs
        if self._lost_in(masters) is not None:
            return ": the parameters are not finite"
        tape = record(lambda masters: self._of(masters, *rest)[0], masters)
        for step in tape.steps:
            if _lost(v.value for v in step.outs):
                if not _lost(v.value for v in step.ins):
                    return f", made by {step.name} at {step.site or 'an unknown line'}"
                return ", in the data already"
        for step in reversed(tape.steps):
            if _lost(v.cotangent for v in step.ins):
                where = step.site or "an unknown line"
                return f", made by the backward pass of {step.name} at {where}"
        return ""


def _largest(x: Any) -> float:
    """Of the magnitudes of the elements that are finite."""
    size = np.abs(np.asarray(x))
    return float(np.max(size, initial=0, where=np.isfinite(size)))


def _lost(values) -> bool:
    """Whether a number among them is none."""
    arrays = [np.asarray(x) for x in values if x is not None and _is_float(x)]
    return any(not np.isfinite(x).all() for x in arrays)


def _is_float(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _saved(step: int, paths, masters, batch, state, key) -> pathlib.Path:
    """What the loss of the step was given, in a file."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxbp-"))
    pairs = zip(paths, jax.tree.leaves(masters), strict=True)
    named = {f"params{path}": _storable(x) for path, x in pairs}
    for what, tree in (("batch", batch), ("state", state), ("key", key)):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named |= {f"{what}{jax.tree_util.keystr(p)}": _storable(x) for p, x in leaves}
    np.savez(folder / f"step-{step}.npz", **named)  # pyright: ignore
    return folder / f"step-{step}.npz"


def _storable(x: Any) -> np.ndarray:
    """As NumPy can name it: of keys their data, narrow floats as float32."""
    x = np.asarray(key_data(x))
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(np.float32) if narrow else x
