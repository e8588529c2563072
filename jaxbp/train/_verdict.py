"""Why a step failed: what is not finite and who made it, or which gradients differ."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._autodiff import autodiff
from jaxbp._tape import record
from jaxbp.instrument._noise import rounding_noise
from jaxbp.train._data import Batches
from jaxbp.train._loop import Carry
from jaxbp.train._mesh import Layout
from jaxbp.train._processes import of_first

_NOISE = 16  # times the spread of 8 draws, as `compare` allows
_CHEAP = 8  # units of roundoff


class Judge:
    """Asked on the host about a step that stopped the loop."""

    def __init__(
        self,
        of: Callable[..., Any],
        slope: Callable[..., Any],
        batches: Batches,
        key: jax.Array,
        paths: Sequence[str],
        both: bool,
        layout: Layout,
    ):
        self._of, self._batches, self._key = of, batches, key
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
        for path, grad in zip(self._paths, grads, strict=True):
            if not jnp.isfinite(grad).all():
                said = f"not finite: the gradient of params{path} at step {step:,}"
                return carry, said + self._made(inputs)
        limit = np.fmax(carry.limit, self._noise(inputs))
        if not (apart > limit).any():
            again = jnp.zeros_like(carry.failed)
            return self._limited(carry, limit)._replace(failed=again), ""
        k = int(np.argmax(np.asarray(apart) / np.maximum(limit, np.finfo("f4").tiny)))
        saved = of_first(lambda: _saved(step, inputs[0], self._paths, inputs[1]))
        return carry, (
            f"gradients differ at step {step:,}: of params{self._paths[k]} by "
            f"{float(apart[k]):.3g} of its largest element, rounding explains "
            f"{float(limit[k]):.3g}; numpy.load({str(saved)!r}) has parameters and "
            "batch"
        )

    def allowing(self, carry: Carry) -> Carry:
        """The carry with what rounding explains at its step as the limit."""
        if not self._both:
            return carry
        inputs = self._layout.whole(self._inputs(carry))
        return self._limited(carry, self._noise(inputs))

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
        spreads, sizes = [], []
        for of in (self._of, autodiff(self._of)):

            def grads(*masters, of=of):
                return jax.grad(of, has_aux=True)(list(masters), *rest)[0]

            noises = rounding_noise(jax.make_jaxpr(grads)(*masters), masters, 0)
            spreads.append([np.max(n, initial=0) for n in noises])
            sizes = [np.max(np.abs(g), initial=0) for g in jax.jit(grads)(*masters)]
        unit = [float(jnp.finfo(x.dtype).eps) for x in masters]
        spread, size = np.max(spreads, axis=0), np.asarray(sizes)
        with np.errstate(all="ignore"):
            noise = np.where(size > 0, _NOISE * spread / size, 0)
        return (noise + _CHEAP * np.asarray(unit)).astype(np.float32)

    def _made(self, inputs) -> str:
        """The equation that made the first number that is none."""
        masters, *rest = inputs
        if not all(jnp.isfinite(x).all() for x in masters):
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


def _lost(values) -> bool:
    """Whether a number among them is none."""
    arrays = [np.asarray(x) for x in values if x is not None and _is_float(x)]
    return any(not np.isfinite(x).all() for x in arrays)


def _is_float(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _saved(step: int, masters, paths, batch) -> pathlib.Path:
    """Parameters and batch of the step in a file."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxbp-"))
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    named = {f"params{p}": np.asarray(x) for p, x in zip(paths, masters, strict=True)}
    named |= {f"batch{jax.tree_util.keystr(p)}": np.asarray(x) for p, x in leaves}
    np.savez(folder / f"step-{step}.npz", **named)  # pyright: ignore
    return folder / f"step-{step}.npz"
