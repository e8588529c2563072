"""A pullback under the transformations of JAX: vmap, scan, remat, sharding."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbp._jaxpr import is_differentiable, live, primal
from jaxbp._steps import holds, is_users_rule
from jaxbp.instrument._by_numpy import run_once
from jaxbp.instrument._witnesses import Pullback, Witness

# Numbers in inputs and cotangents that are transformed in one program.
_TOGETHER = 2**20
Way = Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]


def transformed(
    witness: Witness,
    inputs: Sequence[Any],
    cotangents: Sequence[Any],
    only: str = "",
) -> Iterator[tuple[str, Pullback | Exception]]:
    """The pullback under each transformation in turn; the exception where one raises.

    What comes back is always that of one call: where two copies are mapped over, the
    second with twice the cotangent, it is the second's, halved; where both add up to
    one cotangent, a third of the sum. `only` this one. A batch is sharded where there
    is more than one local device, and a length that some of them divide.
    """
    inputs, cotangents = list(inputs), list(cotangents)
    ways = {n: way for n, way in _ways(witness, inputs).items() if only in ("", n)}
    for name, result in _each(ways, inputs, cotangents):
        yield name, _read(result)
    name, *args = _sharded(inputs, cotangents)
    if args and only in ("", name):
        yield name, _read(_tried(jax.jit(witness.pullback), *args))


def _ways(witness: Witness, inputs: list[Any]) -> dict[str, Way]:
    ways = {
        "vmap": functools.partial(_under_vmap, witness, True),
        "vmap over cotangents": functools.partial(_under_vmap, witness, False),
        "scan": functools.partial(_under_scan, witness),
        "a scan that uses it twice": functools.partial(_through_scan, witness),
        "remat": functools.partial(_under_remat, witness),
    }
    if len(witness.wrt) > 1 and (k := _mapped_leaf(witness, inputs)) is not None:
        name = "vmap over one argument"
        ways[name] = functools.partial(_through_vmap, witness, k)
    return ways


def _each(ways: dict[str, Way], inputs, cotangents) -> Iterator[tuple[str, Any]]:
    """What each way gives, as one program where they are small and none raises."""

    def all_of_them(inputs, cotangents):
        return {name: way(inputs, cotangents) for name, way in ways.items()}

    if sum(np.size(x) for x in (*inputs, *cotangents)) <= _TOGETHER:
        results = _tried(run_once, all_of_them, inputs, cotangents)
        if not isinstance(results, Exception):
            yield from ((name, results[name]) for name in ways)  # in this order again
            return
    for name, way in ways.items():
        yield name, _tried(jax.jit(way), inputs, cotangents)


def _read(result: Any) -> Pullback | Exception:
    return result if isinstance(result, Exception) else Pullback.of(*result)


def _tried(f: Callable[..., Any], *args: Any) -> Any:
    """What f gives, or the exception that it raises."""
    try:
        return f(*args)
    except Exception as error:  # whatever a rule or JAX raises under a transformation
        return error


def _twice(values, by=1):
    return [jnp.stack([jnp.asarray(x), by * jnp.asarray(x)]) for x in values]


def _second(outs, bars):
    return [o[1] for o in outs], [b[1] / 2 for b in bars]


def _under_vmap(witness, mapped, inputs, cotangents):
    # The first is another point: what is the second's may not be taken from it.
    xs = [_beside(x) for x in inputs] if mapped else inputs
    pullback = jax.vmap(witness.pullback, in_axes=(0 if mapped else None, 0))
    return _second(*pullback(xs, _twice(cotangents, 2)))


def _under_scan(witness, inputs, cotangents):
    step = lambda carry, g: (carry, witness.pullback(inputs, g))
    return _second(*jax.lax.scan(step, 0, _twice(cotangents, 2))[1])


def _under_remat(witness, inputs, cotangents):
    whole = Witness(witness.jaxpr, witness.wrt, witness.outputs)
    whole.primal = jax.checkpoint(witness.primal)  # pyright: ignore
    return whole.pullback(inputs, cotangents)


def _through_scan(witness, inputs, cotangents):
    """Two calls share their arguments: the cotangents of both add up."""

    def both(*leaves):
        shared = witness.moved(inputs, leaves)
        step = lambda carry, _: (carry, witness.primal(shared))
        return jax.lax.scan(step, 0, None, length=2)[1]

    outs, back = jax.vjp(both, *(inputs[k] for k in witness.wrt))
    bars = back(_like(_twice(cotangents, 2), outs))
    return [o[1] for o in outs], [b / 3 for b in bars]


def _through_vmap(witness, k, inputs, cotangents):
    """Mapped over leaf k: the cotangents of all others add up."""
    leaves = [inputs[place] for place in witness.wrt]

    def both(mapped, *leaves):
        one = functools.partial(_at_leaf, witness, inputs, leaves, k)
        return jax.vmap(one)(mapped)

    outs, back = jax.vjp(both, *_copies([leaves[k]]), *leaves)
    bar, *bars = back(_like(_twice(cotangents, 2), outs))
    bars = [bar[1] / 2 if j == k else b / 3 for j, b in enumerate(bars)]
    return [o[1] for o in outs], bars


def _at_leaf(witness, inputs, leaves, k, x):
    return witness.primal(witness.moved(inputs, [*leaves[:k], x, *leaves[k + 1 :]]))


def _mapped_leaf(witness, inputs) -> int | None:
    """The first leaf that every output depends on, those of rules inside f too.

    Of an output that the mapped calls share JAX counts the cotangent once a call, or
    refuses: that is no fault of the rule.
    """
    if holds(witness.jaxpr, _has_an_output_of_some_inputs):
        return None
    leaves = [inputs[place] for place in witness.wrt]
    for k, leaf in enumerate(leaves):
        one = functools.partial(_at_leaf, witness, inputs, leaves, k)
        if all(_depends(one, j, leaf) for j in range(len(witness.outputs))):
            return k
    return None


def _has_an_output_of_some_inputs(eqn) -> bool:
    """Whether it calls a rule of which an input reaches one output and not another."""
    if not is_users_rule(eqn):
        return False
    body, _ = primal(eqn)
    all_that_is_read = len(live(body).invars)
    each = (live(body, [k]).invars for k in range(len(eqn.outvars)))
    return any(len(read) < all_that_is_read for read in each)


def _depends(f, output, x) -> bool:
    """Whether an output of f varies where x is mapped over."""
    try:
        jax.eval_shape(jax.vmap(lambda x: f(x)[output], out_axes=None), *_copies([x]))
    except ValueError:  # what varies has an axis
        return True
    return False


def _like(cotangents, outs):
    return [g.astype(o.dtype) for g, o in zip(cotangents, outs, strict=True)]


def _beside(x):
    x = jnp.asarray(x)
    other = x * (1 + 2**-4) if is_differentiable(x) else x
    return jnp.stack([other.astype(x.dtype), x])


def _copies(values):
    return [jnp.stack([jnp.asarray(x)] * 2) for x in values]


def _sharded(inputs, cotangents):
    """Inputs and cotangents with the batch axis laid over the local devices.

    The batch is the first output's leading axis; where no number of devices divides it,
    there is nothing but the name.
    """
    batch = next((np.shape(g)[0] for g in cotangents if np.ndim(g)), 0)
    devices = jax.local_devices()
    counts = [d for d in range(2, len(devices) + 1) if batch and batch % d == 0]
    if not counts:
        return ("sharding",)
    chosen = np.asarray(devices[: counts[-1]])
    mesh = Mesh(chosen, ("batch",), axis_types=(AxisType.Auto,))

    def place(x):
        along = "batch" if np.ndim(x) and np.shape(x)[0] == batch else None
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(along)))

    name = f"sharding over {counts[-1]} devices"
    return name, list(map(place, inputs)), list(map(place, cotangents))
