"""graph(f, *args): the graph of a function, from one sweep forward and one back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxbp import _jaxpr
from jaxbp._arguments import (
    check_closed,
    check_concrete,
    checked,
    leaves_with_paths,
    traceable,
)
from jaxbp._errors import argument_error, describe, function_name
from jaxbp._steps import Step, Value, holds, is_users_rule
from jaxbp._sweep import FLAT, sweep
from jaxbp._tape import output_cotangents
from jaxbp.drawing._build import Builder
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._names import argument_names
from jaxbp.drawing._nodes import every_node
from jaxbp.drawing._replay import Mark, replay
from jaxbp.drawing._section import Run, Section, names_of_data
from jaxbp.drawing._wrong import first_wrong


@traceable("graph")
def graph(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    cotangent: Any = None,
    iteration: int = 0,
) -> Graph:
    r"""The graph of `f` at its arguments, a value and a gradient on every wire.

    For $y = f(x)$ every equation is a node and every intermediate $v$ a wire, with its
    value and its gradient $\bar v = (\partial y/\partial v)^\top \bar y$; every edge
    $u \to v$ has the local derivative $\partial v/\partial u$ where both are scalars,
    and what it adds to $\bar u$: where several edges leave a wire, they add up.
    Hand-written rules stay whole, so that the gradients are those of `jax.grad(f)`, and
    open: into the equations of the primal, and of the bwd. Where `f` has such rules,
    autodiff's gradient stands beside each, their difference in units of rounding, and
    the first wrong link counted from the loss is marked, as `audit` finds it.

    Jitted functions and `jax.named_scope` are groups. Of a cond the branch that is
    taken is there, of a scan one iteration, those before it and after it as one node
    each; a while loop is one node, through which no gradient goes.

    What was recorded is held against `f(*args)` and `jax.grad`: `.check` says how far
    they are apart.

    Args:
        f: any JAX function.
        *args: where to draw it. Float and complex leaves are differentiated.
        kwargs: keyword arguments of `f`, differentiated alike.
        cotangent: a tree like the output, None where an output has none; left out, 1,
            for a function of one real scalar.
        iteration: which of every scan is drawn, counted from 0 in the order that they
            are run, from the end if negative; the last one of a shorter scan.
    Returns:
        Graph: `.nodes`, `.wires`, `.inputs`, `.outputs`, `.check`, `.wrong`, `.ok`;
        `.text()`, `.to_dict()`. Wires are called as the arguments are, as
        `jax.ad_checkpoint.checkpoint_name` calls them, or v1, v2, …
    Raises:
        TypeError: `f` is not callable, or a value is traced: call it at the top level;
            `iteration` is no integer.
        ValueError: no cotangent for a function of more than one scalar; one that does
            not fit the output.
    """
    kwargs = checked("graph", f, args, kwargs)
    check_concrete("graph", leaves_with_paths(args, kwargs))
    check_iteration(iteration)
    program = _jaxpr.trace(f, args, kwargs)
    check_closed("graph", program.jaxpr)
    bars = output_cotangents("graph", program, cotangent)
    run = _known(sweep(program.jaxpr, program.inputs, bars, iteration=iteration))
    twin = None
    if holds(program.jaxpr, is_users_rule):
        settings: Any = {"wires": False, "rules": False, "iteration": iteration}
        twin = sweep(program.jaxpr, program.inputs, bars, **settings)
        # A fwd of another value than its primal may have taken another branch.
        twin = _known(twin) if _same(run[2], twin[2]) else None
    builder = Builder(iteration)
    named = argument_names(f, args, kwargs)
    leaves = [(builder.names.named(name), leaf) for name, leaf in named]
    data = names_of_data(leaves, run)
    arguments = [name for name, leaf in leaves if _jaxpr.is_differentiable(leaf)]
    called = {id(v): name for v, name in zip(run[0], arguments, strict=True)}
    section = Section(run, called, data)
    _call_outputs(program, section)
    for k, (name, value) in enumerate(zip(arguments, run[0], strict=True)):
        auto = twin and twin[0][k].cotangent
        builder.wire(name, "argument", value.value, value.cotangent, auto)
    nodes = builder.nodes(section, twin=twin)
    outputs = tuple(_output(builder, section, v) for v in run[1])
    read = {edge.wire for node in every_node(nodes) for edge in node.edges}
    for name, leaf in leaves:
        if name not in builder.wires and name in read:
            builder.wire(name, "data", leaf)
    wires = builder.wires
    inputs = tuple(n for n, _ in leaves if n in wires)
    check = replay(f, args, kwargs, program, bars, run[0], run[1])
    wrong = first_wrong(f, args, kwargs, nodes, run, twin) if twin else None
    notes = tuple(f"{n.label}: {n.note}" for n in every_node(nodes) if n.note)
    return Graph(nodes, wires, function_name(f), inputs, outputs, check, wrong, notes)


def _same(steps: Sequence[Step], others: Sequence[Step]) -> bool:
    return [(s.name, s.where) for s in steps] == [(s.name, s.where) for s in others]


def _known(run: Run) -> Run:
    """Without the gradients that lack a term: what is before a while loop, a callback
    or a rule that raises has none, whatever other ways there are."""
    lacking: set[int] = set()
    for step in reversed(run[2]):
        is_stop = step.note and any(o.cotangent is not None for o in step.outs)
        lets_through = step.name == "while" or step.name not in FLAT
        if is_stop or (lets_through and any(id(o) in lacking for o in step.outs)):
            lacking.update(id(v) for v in step.ins if v.active)
            step.bars = ()
    for value in (*run[0], *(out for step in run[2] for out in step.outs)):
        if id(value) in lacking:
            value.cotangent = None
    return run


def check_iteration(iteration: object) -> None:
    if isinstance(iteration, bool) or not isinstance(iteration, (int, np.integer)):
        got = describe(iteration)
        raise argument_error("graph", "iteration", "an integer", got, kind=TypeError)


def _output(builder: Builder, section: Section, value: Value) -> str:
    """The wire of an output; one that no argument has a part in is a constant."""
    if (name := section.name(value)) is not None:
        return name
    name = builder.names.named(section.fallback[id(section.root(value))])
    return builder.wire(name, "constant", value.value)


def _call_outputs(program: _jaxpr.Program, section: Section) -> None:
    """An output that has no name is y, or where it stands in the tree, y['loss']."""
    marks = [Mark(k) for k in range(len(section.outputs))]
    pairs = jax.tree_util.tree_leaves_with_path(program.merge(marks))
    for path, mark in pairs:
        if isinstance(mark, Mark):
            name = "y" + jax.tree_util.keystr(path)
            section.fallback[id(section.root(section.outputs[mark.k]))] = name
