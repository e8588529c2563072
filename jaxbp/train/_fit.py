"""fit: any loss, a compiled run, and the reason why it stopped."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from jaxbp._arguments import check_function, whole
from jaxbp._errors import argument_error, describe
from jaxbp.train import _checkpoint
from jaxbp.train._about import about as about_run
from jaxbp.train._about import moves
from jaxbp.train._data import batches
from jaxbp.train._mesh import layout_over
from jaxbp.train._processes import agreed, check_equal, everyones, watching
from jaxbp.train._stops import ends_of, reason, total_of
from jaxbp.train._trainer import Trainer, figures
from jaxbp.train._watch import Clock, at, interruptible, shown


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
            of which the loss is given the rounded ones; all others are kept. The
            optimiser is given the same tree, with None for what is not trained.
        data: arrays with one leading axis, or `batch(step, key)`, which makes the
            batch of a step inside the compiled program.
        optimizer: an optax transformation.
        steps: how many at most.
        epochs: the same in passes over the data.
        loss_below: stop at the first step whose loss is below; it changes nothing.
        gradient: "manual", the hand-written one; "auto", that of `autodiff(loss)`;
            "both": the hand-written one trains, and the run stops where it differs from
            autodiff's beyond what rounding does; elements in which autodiff's is not
            finite are left out. None is "manual" where the loss holds
            a hand-written rule, else "auto".
        batch_size: rows of a minibatch, shuffled every epoch; None takes all rows.
        seed: of the order of the data and of the keys. Epoch e takes the rows in the
            order of `jax.random.permutation(jax.random.fold_in(key, e), rows)`, where
            `key, _ = jax.random.split(jax.random.key(seed))`.
        has_state: the loss takes and returns a state.
        state: the first one.
        mesh: a `jax.sharding.Mesh` with an axis "batch", along whose devices each batch
            is split; the parameters are whole on every device, but for those that were
            given split over this mesh (`jax.device_put` with a `NamedSharding`), which
            stay so. The figures are those of one device, but for rounding. Several
            processes (`join_cluster`) call `fit` alike, with a mesh over the devices of
            all and the same data, whole; the first prints, logs and saves, and each has
            the same Result.
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
            number, in an entry of their own; one whose name the entry has already is
            `evaluate.NAME` there, and a metric `metrics.NAME`.
    Returns:
        Result. `.stopped_because` names the condition that held, the key pressed, or
        what was not finite and where.
    Raises:
        ValueError: no condition to stop by; data, batch size, loss or gradient that do
            not fit; a mesh that does not divide the batch, has no axis "batch" or one
            that nothing is split along; a folder that can't be written, holds
            checkpoints though `resume` is false, or holds those of other parameters,
            states, data, optimiser, batch size, seed or gradient; data or options that
            differ between processes.
        RuntimeError: another process is lost.
        TypeError: `loss` or `data` is no function of what it is given, or a loader;
            `optimizer` no optax transformation; `on_log` no function.
        ModuleNotFoundError: `checkpoint` without orbax, `pip install 'jaxbp[train]'`.
    """
    _check(loss, optimizer, state, has_state, on_log)
    order_key, noise_key = jax.random.split(
        jax.random.key(whole("fit", "seed", seed, 0, 2**32 - 1))
    )
    layout = layout_over(mesh, params, state)
    held = {"gradient": gradient, "loss_below": loss_below}
    check_equal(
        *(params, state, data),
        **held,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        mesh=mesh,
        checkpoint=checkpoint,
        resume=resume,
        log_every=log_every,
        evaluate=evaluate,
    )
    asked = _checkpoint.asked_for(checkpoint, resume)
    drawn = batches(data, batch_size, order_key, layout)
    total = total_of(steps, epochs, loss_below, drawn.per_epoch)
    is_heard = any(everyones(on_log is not None))  # the first process alone may log
    ends = ends_of(total, log_every, evaluate, asked, is_heard)
    given = loss, params, state, optimizer, drawn, layout, noise_key
    held["log_every"] = ends.log_every
    trainer = Trainer(*given, has_state=has_state, **held)
    first = trainer.first
    told = asked or jax.process_count() > 1
    updates = moves(optimizer, first.masters) if told else ""
    check_equal((), (), (), optimizer=updates)
    about = asked and about_run(
        *(params, first.opt_state, first.state, first.metrics, data),
        updates,
        batch_size=batch_size,
        seed=seed,
        gradient=trainer.route,
    )
    over = functools.partial(
        reason, total=total, steps=steps, loss_below=loss_below, judge=trainer.judge
    )
    with (
        _checkpoint.opened(asked, resume, about, layout) as saved,
        shown(total, on_log) as show,
        interruptible() as interrupted,
        watching(),
    ):
        return _trained(trainer, ends, over, saved, show, interrupted, evaluate)


def _check(loss, optimizer, state, has_state, on_log) -> None:
    """What can be said of them before anything is traced."""
    check_function("fit", "loss", loss)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        expected, got = "an optax transformation", describe(optimizer)
        raise argument_error("fit", "optimizer", expected, got, kind=TypeError)
    if state is not None and not has_state:
        mend = "give has_state=True"
        raise argument_error("fit", "state", "None", describe(state), mend)
    if on_log is not None:
        check_function("fit", "on_log", on_log)


def _trained(trainer, ends, over, saved, show, interrupted, evaluate) -> Result:
    """Chunk after chunk, until there is a reason to stop: the host's part of it."""
    carry, history = saved.newest(trainer.first) if saved else (trainer.first, [])
    begun = history[-1]["seconds"] if history else 0.0
    clock, because = Clock(int(carry.step), begun), ""
    while not because:
        before = int(carry.step)
        until = ends.after(before)
        carry, entries = trainer.advance(carry, until)
        done = int(carry.step)
        carry, because = over(carry)
        pressed, times = agreed(interrupted(), clock(done))
        history += [entry | at(entry["step"], done, times) for entry in entries]
        ends.paced(times["steps_per_second"], trainer.room)
        if pressed and not because:
            because = f"interrupted after {done:,} steps"
        tried = done > before or carry.met or carry.failed
        if tried and (because or done == until):
            entry = trainer.entry(carry) | times
            if evaluate and (because or done % evaluate[0] == 0):
                found = evaluate[1](trainer.params(carry))
                entry |= figures("evaluate", found, entry)
            history.append(entry)
            show(entry)
            if saved is not None and (because or ends.saves(done)):
                saved.save(carry, history)
    params = trainer.params(carry)
    return Result(params, carry.opt_state, carry.state, history, because)
