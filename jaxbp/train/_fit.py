"""fit: any loss, a compiled run, and the reason why it stopped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxbp._arguments import check_function, whole
from jaxbp._errors import argument_error, describe
from jaxbp.train import _checkpoint, _gradient, _verdict
from jaxbp.train._data import Batches, batches
from jaxbp.train._loop import Carry, chunk, start
from jaxbp.train._mesh import layout_over
from jaxbp.train._watch import Clock, interruptible, shown

_ENTRIES = 100  # of the history, where log_every is left out
_STEPS = 1000  # between them, where nobody says how many steps there are


@dataclass(frozen=True)
class Result:
    """The end of a run.

    `params` is a tree like the one given; `opt_state` and `state` the optimiser's and
    the loss's. `history` is a list of dicts: `step` (done so far), `loss` (of the last
    of them, before its update), the loss's metrics and what `evaluate` gives, `seconds`
    and `steps_per_second`; with `gradient="both"` also `apart`, by leaf the largest
    relative difference of the two gradients so far.
    """

    params: Any
    opt_state: Any
    state: Any
    history: list[dict[str, Any]]
    stopped_because: str


def fit(
    loss: Callable[..., Any],
    params: Any,
    data: Any,
    optimizer: optax.GradientTransformation,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    loss_below: float | None = None,
    gradient: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    has_state: bool = False,
    state: Any = None,
    mesh: Any = None,
    checkpoint: Any = None,
    resume: bool = False,
    log_every: int | None = None,
    on_log: Callable[[Mapping[str, Any]], None] | None = None,
    evaluate: tuple[int, Callable[[Any], Any]] | None = None,
) -> Result:
    r"""Train `params` on a loss: $\theta \leftarrow \theta + u(\partial_\theta L)$.

    Many steps are one compiled program, in which batches are drawn, both stop
    conditions held and states given from step to step; the host logs and evaluates
    between. The same seed on the same machine gives the same result, bit for bit.

    Args:
        loss: `loss(params, batch) -> scalar`, or `(scalar, metrics)`. With a `key`
            among its parameters it is given one for every step. With `has_state`,
            `loss(params, batch, state=state) -> (scalar, state)`, or metrics after
            them.
        params: any tree. Floating leaves are trained, bfloat16 and float16 as float32
            of which the loss is given the rounded ones; all others are kept.
        data: arrays with one leading axis, or `batch(step, key)`, which makes the
            batch of a step inside the compiled program.
        optimizer: an optax transformation.
        steps: how many at most.
        epochs: the same in passes over the data.
        loss_below: stop at the first step whose loss is below; it changes nothing.
        gradient: "manual", the hand-written one; "auto", that of `autodiff(loss)`;
            "both": the hand-written one trains, and the run stops where it differs from
            autodiff's beyond what rounding does. None is "manual" where the loss holds
            a hand-written rule, else "auto".
        batch_size: rows of a minibatch, shuffled every epoch; None takes all rows.
        seed: of the order of the data and of the keys.
        has_state: the loss takes and returns a state.
        state: the first one.
        mesh: a `jax.sharding.Mesh` with an axis "batch", along whose devices each batch
            is split; the parameters are whole on every device, but for those that were
            given split over this mesh (`jax.device_put` with a `NamedSharding`), which
            stay so. The figures are those of one device, but for rounding.
        checkpoint: a folder, or `(every, folder)`, for what the run needs to go on:
            parameters, the optimiser's and the loss's states, step, place in the data
            and history, saved by orbax after every entry or so many steps, and at the
            end. The newest three stay.
        resume: go on after the newest of them, with the same bits as a run that was
            never interrupted; where the folder is empty, begin.
        log_every: steps between entries of the history; a hundredth of them all, or
            1000 where their number is not known.
        on_log: called with every entry, in place of the progress bar (of lines, where
            standard error is no terminal).
        evaluate: `(every, function)`: figures of `function(params)`, a dict or a
            number, in an entry of their own.
    Returns:
        Result. `.stopped_because` names the condition that held, the key pressed, or
        what was not finite and where.
    Raises:
        ValueError: no condition to stop by; data, batch size, loss or gradient that do
            not fit; a mesh that does not divide the batch, has no axis "batch" or one
            that nothing is split along; a folder that can't be written, holds
            checkpoints though `resume` is false, or holds those of other parameters,
            states, data, batch size, seed or gradient.
        TypeError: `loss` is not callable, `optimizer` no optax transformation.
        ModuleNotFoundError: `checkpoint` without orbax, `pip install 'jaxbp[train]'`.
    """
    check_function("fit", "loss", loss)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        expected, got = "an optax transformation", describe(optimizer)
        raise argument_error("fit", "optimizer", expected, got, kind=TypeError)
    order_key, noise_key = jax.random.split(
        jax.random.key(whole("fit", "seed", seed, 0))
    )
    asked = _checkpoint.asked_for(checkpoint, resume)
    layout = layout_over(mesh, params, state)
    drawn = batches(data, batch_size, order_key, layout)
    total = _total(steps, epochs, loss_below, drawn)
    leaves = _gradient.split(params, layout)
    state = layout.placed(state)
    of = _gradient.called(loss, leaves.merge, has_state)
    order = layout.placed(drawn.first())
    batch, _ = jax.jit(drawn.draw)(drawn.arrays, order, jnp.int32(0))
    route = _gradient.route_of(
        gradient, loss, of, leaves.masters, batch, state, noise_key
    )
    watched = len(leaves.masters) if route == "both" else 0
    slope = _gradient.slope(of, route)
    carry = start(
        of, leaves.masters, optimizer, drawn, state, noise_key, watched, layout
    )
    judge = _verdict.Judge(
        of, slope, drawn, noise_key, leaves.paths, route == "both", layout
    )
    carry = judge.allowing(carry)
    lying = layout.shardings(carry)
    run = chunk(slope, optimizer, drawn, loss_below, noise_key, lying)
    ends = _ends(total, log_every, evaluate, asked)
    about = asked and _checkpoint.about(
        *(params, carry.opt_state, carry.state, data),
        batch_size=batch_size,
        seed=seed,
        gradient=route,
    )
    history: list[dict[str, Any]] = []
    with (
        _checkpoint.opened(asked, resume, about, layout) as saved,
        shown(total, on_log) as show,
        interruptible() as interrupted,
    ):
        if saved:
            carry, history = saved.newest(carry)
        begun = history[-1]["seconds"] if history else 0.0
        clock, because = Clock(int(carry.step), begun), ""
        while not because:
            before = int(carry.step)
            until = ends.after(before)
            carry = run(carry, drawn.arrays, until)
            done = int(carry.step)
            carry, because = _because(carry, total, steps, loss_below, judge)
            if interrupted() and not because:
                because = f"interrupted after {done:,} steps"
            tried = done > before or carry.met or carry.failed
            if tried and (because or done == until):
                entry = _entry(carry, done, leaves, watched) | clock(done)
                if evaluate and (because or done % evaluate[0] == 0):
                    entry |= _figures(evaluate[1](leaves.merge(carry.masters)))
                history.append(entry)
                show(entry)
                if saved is not None and (because or ends.saves(done)):
                    saved.save(carry, history)
    merged = leaves.merge(carry.masters)
    return Result(merged, carry.opt_state, carry.state, history, because)


class _Ends:
    """The steps after which the host has something to do, and those that are saved."""

    def __init__(self, total: int | None, saved: int | None, *every: int):
        self._total, self._saved = total, saved
        self._every = every if saved is None else (*every, saved)

    def after(self, step: int) -> int:
        ends = [step - step % n + n for n in self._every]
        return min(ends if self._total is None else [*ends, self._total])

    def saves(self, step: int) -> bool:
        return self._saved is None or step % self._saved == 0


def _ends(total, log_every, evaluate, asked) -> _Ends:
    if log_every is None:
        log_every = _STEPS if total is None else max(1, -(-total // _ENTRIES))
    every = [whole("fit", "log_every", log_every, 1)]
    if evaluate is not None:
        if not isinstance(evaluate, tuple) or len(evaluate) != 2:
            expected = "(every, function)"
            raise argument_error(
                "fit", "evaluate", expected, describe(evaluate), kind=TypeError
            )
        every.append(whole("fit", "evaluate[0]", evaluate[0], 1))
        check_function("fit", "evaluate[1]", evaluate[1])
    return _Ends(total, asked and asked.every, *every)


def _total(steps, epochs, loss_below, drawn: Batches) -> int | None:
    """Steps at most; None where only the loss ends the run."""
    if steps is epochs is loss_below is None:
        expected, mend = "at least one", "give steps=, epochs= or loss_below="
        raise argument_error("fit", "conditions to stop by", expected, "none", mend)
    counts = []
    if steps is not None:
        counts.append(whole("fit", "steps", steps, 0))
    if epochs is not None:
        if drawn.per_epoch is None:
            got, mend = "a function, whose data has no end", "give steps="
            expected = "arrays, with epochs="
            raise argument_error("fit", "data", expected, got, mend)
        counts.append(whole("fit", "epochs", epochs, 0) * drawn.per_epoch)
    return min(counts) if counts else None


def _because(carry: Carry, total, steps, loss_below, judge) -> tuple[Carry, str]:
    """Why the run is over, "" where it is not."""
    done = int(carry.step)
    if carry.failed:
        return judge(carry)
    if carry.met:
        said = f"loss_below: {float(carry.loss):.6g} < {loss_below:g} at step {done:,}"
        return carry, said
    if total is not None and done >= total:
        return carry, "steps" if total == steps else "epochs"
    return carry, ""


def _entry(carry: Carry, done: int, leaves, watched: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": done, "loss": float(carry.loss)}
    entry |= _figures(carry.metrics)
    if watched:
        pairs = zip(leaves.paths, carry.apart.tolist(), strict=True)
        entry["apart"] = dict(pairs)
    return entry


def _figures(found: Any) -> dict[str, Any]:
    """Figures by name: of a dict its own, of anything else its key paths."""
    if not isinstance(found, Mapping):
        pairs = jax.tree_util.tree_leaves_with_path(found)
        found = {f"evaluate{jax.tree_util.keystr(p)}": x for p, x in pairs}
    return {str(k): _plain(v) for k, v in found.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "ndim") and value.ndim == 0:
        return value.item()
    return value
