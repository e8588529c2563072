"""What JAX accepts in silence: a rule holds twice, sparsely and transformed."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbp.instrument._answers import first_line, worst_at
from jaxbp.instrument._by_numpy import run_once
from jaxbp.instrument._comparison import Finding, elsewhere
from jaxbp.instrument._judge import disagreement, worst_elements
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._witnesses import Pullback, Witness

_ONE_HOTS = 6  # of an output, with effort="full"
_TOGETHER = (
    2**20
)  # numbers in inputs and cotangents that are transformed in one program


def repeatable(answers: Testimony, findings: list[Finding]) -> list[Finding]:
    """The findings; broken-contract in their place where a second run differs."""
    again = answers.hand_written(answers.probes[-1])
    # By autodiff's noise: that of a rule which is not repeatable hides what it does.
    changed = _changed(answers, again, "differs between two runs", witness=1)
    instead = {finding.argument: finding for finding in changed}
    return [instead.get(finding.argument, finding) for finding in findings]


def sparsely(
    answers: Testimony, surrogates: Collection[str], *, everywhere: bool = False
) -> list[Finding]:
    """Findings for a cotangent that is 0 but in one element; `everywhere`: for many.

    What divides by its cotangent, or looks for the largest, shows where most are 0.
    """
    avals, size = answers.program.avals, sum(g.size for g in answers.probes[0])
    if size < 2:
        return []
    rng = np.random.default_rng((answers.seed, 2))
    chosen = [int(rng.integers(size))]
    if everywhere:
        ends = np.cumsum([0, *(aval.size for aval in avals)])
        for start, stop in itertools.pairwise(ends):
            chosen += np.linspace(start, stop - 1, _ONE_HOTS).astype(int).tolist()
    bars = [_one_hot(answers.probes[-1], k) for k in dict.fromkeys(chosen) if k >= 0]
    if everywhere:
        bars.append([g * (rng.random(g.shape) < 0.5) for g in answers.probes[-1]])
    asked = (answers.program, answers.inputs, answers.paths, answers.seed)
    there = Testimony(*asked, cotangents=bars)
    findings = there.findings(surrogates, callers=False)
    return elsewhere(findings, "for a cotangent that is mostly 0")


def transformations(answers: Testimony) -> list[Finding]:
    """broken-contract where vmap, scan, remat or sharding change the pullback.

    Where one raises it is a finding only if autodiff's pullback does not raise there.
    """
    program, args = answers.program, (answers.inputs, answers.probes[-1])
    found: list[Finding] = []
    for name, result in transformed(program.manual, *args).items():
        if isinstance(result, Pullback):
            found += _changed(
                answers, result, f"under {name} another gradient than without"
            )
            continue
        of_auto = transformed(program.auto, *args, only=name)[name]
        if isinstance(of_auto, Pullback):
            reason = first_line(result)
            message = f"{name} raises, of autodiff it does not: {reason}"
            found += [
                Finding("broken-contract", path, message=message)
                for path in answers.paths
            ]
    paths = dict.fromkeys(finding.argument for finding in found)
    return [_together([f for f in found if f.argument == path]) for path in paths]


def _together(found):
    """One finding of several on a leaf: the first, with what all of them say."""
    message = "; ".join(dict.fromkeys(finding.message for finding in found))
    return dataclasses.replace(found[0], message=message)


def transformed(
    witness: Witness,
    inputs: Sequence[Any],
    cotangents: Sequence[Any],
    only: str = "",
) -> dict[str, Pullback | Exception]:
    """The pullback under each transformation; the exception where one raises.

    What comes back is always that of one call: where two copies are mapped over, the
    second with twice the cotangent, it is the second's, halved; where both add up to
    one cotangent, a third of the sum. `only` this one. A batch is sharded where there
    is more than one local device, and a length that some of them divide.
    """
    inputs, cotangents = list(inputs), list(cotangents)
    ways = {n: way for n, way in _ways(witness, inputs).items() if only in ("", n)}
    results = _all_of(ways, inputs, cotangents)
    name, *args = _sharded(inputs, cotangents)
    if args and only in ("", name):
        results[name] = _tried(jax.jit(witness.pullback), *args)
    found: dict[str, Pullback | Exception] = {}
    for name, result in results.items():
        if not isinstance(result, Exception):
            outs, bars = result
            result = Pullback(*(list(map(np.asarray, part)) for part in (outs, bars)))
        found[name] = result
    return found


Way = Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]


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


def _all_of(ways: dict[str, Way], inputs, cotangents) -> dict[str, Any]:
    """What each way gives, as one program where they are small and none raises."""

    def all_of_them(inputs, cotangents):
        return {name: way(inputs, cotangents) for name, way in ways.items()}

    if sum(np.size(x) for x in (*inputs, *cotangents)) <= _TOGETHER:
        results = _tried(run_once, all_of_them, inputs, cotangents)
        if not isinstance(results, Exception):
            return {name: results[name] for name in ways}  # in this order again
    return {
        name: _tried(jax.jit(way), inputs, cotangents) for name, way in ways.items()
    }


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
    xs = _copies(inputs) if mapped else inputs
    pullback = jax.vmap(witness.pullback, in_axes=(0 if mapped else None, 0))
    return _second(*pullback(xs, _twice(cotangents, 2)))


def _under_scan(witness, inputs, cotangents):
    xs = (_copies(inputs), _twice(cotangents, 2))
    return _second(*jax.lax.scan(lambda c, x: (c, witness.pullback(*x)), 0, xs)[1])


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
    """The first leaf that every output depends on.

    Of an output that the mapped calls share JAX counts the cotangent once a call, or
    refuses: that is no fault of the rule.
    """
    leaves = [inputs[place] for place in witness.wrt]
    for k, leaf in enumerate(leaves):
        one = functools.partial(_at_leaf, witness, inputs, leaves, k)
        if all(_depends(one, j, leaf) for j in range(len(witness.outputs))):
            return k
    return None


def _depends(f, output, x) -> bool:
    """Whether an output of f varies where x is mapped over."""
    try:
        jax.eval_shape(jax.vmap(lambda x: f(x)[output], out_axes=None), *_copies([x]))
    except ValueError:  # what varies has an axis
        return True
    return False


def _like(cotangents, outs):
    return [g.astype(o.dtype) for g, o in zip(cotangents, outs, strict=True)]


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


def _one_hot(cotangents, k):
    bars = []
    for g in cotangents:
        bar = np.zeros_like(g)
        if 0 <= k < g.size:
            bar.flat[k] = g.flat[k]
        bars.append(bar)
        k -= g.size
    return bars


def _changed(
    answers: Testimony, result: Pullback, message: str, witness: int = 0
) -> list[Finding]:
    """broken-contract where a pullback is not that of the last probe.

    Beyond the rounding noise of the witness: 0, the hand-written one; 1, autodiff.
    """
    plain, found = answers.manual[-1], []
    triples = zip(answers.paths, plain.cotangents, result.cotangents, strict=True)
    for k, (path, before, after) in enumerate(triples):
        multiple = disagreement(after, before, answers.unit)
        if multiple.any():
            noise = answers.noise(len(answers.probes) - 1)[witness].cotangents[k]
            multiple = disagreement(after, before, answers.unit, noise)
        if multiple.any():
            worst = worst_at(after, before, int(worst_elements(multiple)[0]))
            found.append(Finding("broken-contract", path, "", worst, "", message))
    return found
