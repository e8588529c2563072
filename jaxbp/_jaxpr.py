"""Jaxprs: trace, find hand-written rules, remove them.

The only file that touches JAX's internals. A *rule* is an equation whose derivative
somebody wrote: `custom_vjp_call`, `custom_jvp_call`, or, with JAX_CUSTOM_VJP3,
`call_hi_primitive`.
"""

import contextlib
import functools
import math
import os
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import config, core, source_info_util
from jax._src.interpreters import partial_eval
from jax._src.linear_util import WrappedFun
from jax.extend.core import ClosedJaxpr, DropVar, Literal, gensym, jaxpr_as_fun
from jax.extend.core import Jaxpr as OpenJaxpr

# Up to jax 0.11 open and closed jaxprs are two classes, later one: no type names both.
Jaxpr = Any
Eqn = Any

_JAX = os.path.dirname(jax.__file__) + os.sep
_HERE = os.path.dirname(__file__)
_INSTRUMENT = {_HERE, os.path.join(_HERE, "instrument")}  # their lines call nothing
_INLINED = {"jit", "pjit", "remat2", "checkpoint", "closed_call", "core_call"}
_INLINED |= {"eval_jaxpr"}


# Tracing


class Program(NamedTuple):
    """A function traced at some arguments: `merge(jaxpr_as_fun(jaxpr)(*inputs))`."""

    jaxpr: Jaxpr
    inputs: list[Any]
    merge: Callable[[Sequence[Any]], Any]


def is_tracer(leaf: object) -> bool:
    return isinstance(leaf, core.Tracer)


def is_differentiable(leaf: object) -> bool:
    """Float and complex leaves, Python scalars too; data and static leaves are not."""
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.inexact)
    return isinstance(leaf, (float, complex))


def trace(
    f: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic: Callable[[object], bool] = is_differentiable,
) -> Program:
    """Trace `f(*args, **kwargs)` to a jaxpr of its dynamic leaves.

    Every other leaf reaches `f` as it is, so that Python control flow on flags, sizes
    and concrete data works as without a trace. Traced values that `f` closes over are
    constants of the jaxpr, and stay differentiable. Outputs that are no traced values
    (Python scalars, strings) are set aside, and put back by `merge`.
    """
    leaves, in_tree = jax.tree.flatten((args, kwargs or {}))
    chosen = [dynamic(leaf) for leaf in leaves]
    aside: list[Any] = []

    def flat(*inputs):
        values = iter(inputs)
        merged = [next(values) if c else x for c, x in zip(chosen, leaves, strict=True)]
        f_args, f_kwargs = jax.tree.unflatten(in_tree, merged)
        outs, out_tree = jax.tree.flatten(f(*f_args, **f_kwargs))
        aside[:] = [[None if is_tracer(o) else (o,) for o in outs], out_tree]
        return [o for o in outs if is_tracer(o)]

    inputs = [x for c, x in zip(chosen, leaves, strict=True) if c]
    jaxpr = jax.make_jaxpr(flat)(*inputs)
    fixed, out_tree = aside

    def merge(outs):
        values = iter(outs)
        return jax.tree.unflatten(
            out_tree, [o[0] if o else next(values) for o in fixed]
        )

    return Program(jaxpr, inputs, merge)


def evaluate(jaxpr: Jaxpr, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a closed jaxpr, as JAX itself would compute them."""
    return jaxpr_as_fun(jaxpr)(*inputs)


# Rules


@dataclass(frozen=True)
class Rule:
    """One equation whose derivative is hand-written.

    `kind` is `custom_vjp`, `custom_jvp` or `hijax` (a primitive with rules of its own),
    `source` is where the rule is defined and `site` where it is called, `file:line`,
    `outer` the rule in whose primal it is called.
    """

    name: str
    kind: str
    source: str
    site: str
    from_jax: bool
    eqn: Eqn
    outer: "Rule | None" = None


def is_rule(eqn: Eqn) -> bool:
    """Whether an equation calls a rule: `as_rule` says which, and takes its time."""
    name = eqn.primitive.name.removesuffix("_call")
    return name in ("custom_vjp", "custom_jvp", "call_hi_primitive")


def as_rule(eqn: Eqn) -> Rule | None:
    """The rule that an equation calls, None where it calls none."""
    params, kind = eqn.params, eqn.primitive.name.removesuffix("_call")
    if kind == "call_hi_primitive":
        prim = params["_prim"]
        while hasattr(prim, "prim"):  # what vmap wraps around a rule on jax 0.10
            prim = prim.prim
        traced = getattr(prim, "traced", None)
        if traced is None:
            return _rule(eqn, "hijax", _function_source(type(prim).expand), [])
        kind = "custom_vjp" if hasattr(prim, "bwd") else "custom_jvp"
        functions = [getattr(prim, k, None) for k in ("fwd", "bwd", "jvp_rule")]
        return _rule(eqn, kind, traced.jaxpr.debug_info.func_src_info, functions)
    if kind in ("custom_vjp", "custom_jvp"):
        functions = [params.get(k) for k in ("fwd_jaxpr_thunk", "bwd", "jvp_jaxpr_fun")]
        primal = params["call_jaxpr"].jaxpr.debug_info.func_src_info
        return _rule(eqn, kind, primal, functions)
    return None


def asks_what_varies(eqn: Eqn) -> bool:
    """Whether a rule's fwd is told which of its inputs are differentiated.

    JAX remembers what such a rule keeps for one choice of them at a time: once another
    is traced from the same equation, the first cannot be asked again.
    """
    return bool(eqn.params.get("symbolic_zeros"))


def find_rules(jaxpr: Jaxpr) -> list[Rule]:
    """Every rule in a jaxpr, in program order; after a rule, those in its primal."""
    return _find_rules(jaxpr, "", None)


def _find_rules(jaxpr: Jaxpr, site: str, outer: Rule | None) -> list[Rule]:
    found: list[Rule] = []
    for eqn in jaxpr.eqns:
        here, rule = site_of(eqn) or site, as_rule(eqn)
        if rule:
            rule = replace(rule, site=here, outer=outer)
            found.append(rule)
        for body in bodies(eqn):
            found += _find_rules(body, here, rule or outer)
    return found


def primal(eqn: Eqn, inputs: Sequence[Any] | None = None) -> tuple[Jaxpr, list[Any]]:
    """The jaxpr of a rule's primal, and those of the rule's inputs that it takes."""
    inputs = list(eqn.invars if inputs is None else inputs)
    if "call_jaxpr" in eqn.params:
        return eqn.params["call_jaxpr"], inputs
    prim = eqn.params["_prim"]
    if not hasattr(prim, "traced"):

        def expand(*flat):
            return jax.tree.leaves(prim.expand(*prim.in_tree.unflatten(flat)))

        with eqn.ctx.manager:
            return jax.make_jaxpr(expand)(*[v.aval for v in eqn.invars]), inputs
    if hasattr(prim, "drop_fwd_consts"):
        args = prim.in_tree.unflatten(inputs)
        inputs = jax.tree.leaves(prim.drop_fwd_consts(*args))
    return prim.traced.jaxpr, inputs


def argument_names(eqn: Eqn) -> list[str]:
    """What a rule's own function calls its flat inputs (`x`, `p['w']`).

    "" for a value that the function closes over; their number, where none is known.
    """
    params, body = eqn.params, primal(eqn)[0]
    thunk = params.get("fwd_jaxpr_thunk")
    names = getattr(getattr(thunk, "debug_info", None), "arg_names", None)
    names = names or body.jaxpr.debug_info.arg_names or ()
    count = len(eqn.invars)
    if not names or len(names) > count:
        return [f"[{k}]" for k in range(count)]
    return [""] * (count - len(names)) + [str(name) for name in names]


def closed_over(eqn: Eqn) -> int:
    """How many of a rule's inputs, the first ones, it has no derivative in.

    They are arrays that its function closes over.
    """
    prim = eqn.params.get("_prim")
    if hasattr(prim, "drop_fwd_consts"):
        consts, fwd_consts, *_ = prim.in_tree.unflatten(eqn.invars)
        return len(jax.tree.leaves((consts, fwd_consts)))
    return eqn.params.get("num_consts", 0)


def out_of_reach(jaxpr: Jaxpr) -> list[str]:
    """Hand-written rules that `without_rules` cannot remove, one line each.

    Those that the traced function has differentiated itself, and those called inside a
    rule of JAX's own that is kept (`custom_root`, `odeint`).
    """
    enclosed = [
        f"{rule.name} at {rule.source}, inside JAX's {rule.outer.name}"
        for rule in find_rules(jaxpr)
        if rule.outer and rule.outer.from_jax and not rule.from_jax
    ]
    return [*differentiated(jaxpr), *dict.fromkeys(enclosed)]


def differentiated(jaxpr: Jaxpr) -> list[str]:
    """Rules that the traced function has differentiated itself, by function or site.

    `jax.grad(g)` inside `f` leaves of g's rule only the arithmetic of its fwd, bwd or
    jvp, which no rewriting can undo. Such an equation is known by its traceback: it was
    traced below the call of a rule without being that call. A rule that added no
    equation is not seen. Rules known to be JAX's own are left out; where the traceback
    does not tell whose it was (a rule differentiated inside jit or scan), it is listed.
    """
    found: dict[str, None] = {}
    for eqn in jaxpr.eqns:
        if as_rule(eqn):
            continue
        if source := _differentiated_rule(eqn):
            found[source] = None
        # What a scatter adds with, and functions that JAX itself jits, it traces once,
        # wherever they are needed first.
        if not eqn.primitive.name.startswith("scatter"):
            for body in _jaxprs_of(eqn):
                if not (is_call(eqn) and is_from_jax(body)):
                    found |= dict.fromkeys(differentiated(body))
    return list(found)


def _rule(eqn: Eqn, kind: str, primal_source: str, functions: Iterable[Any]) -> Rule:
    sources = [primal_source, *_sources(functions)]
    written = [s for s in sources if _path(s) and not _path(s).startswith(_JAX)]
    # A custom_gradient's primal is a wrapper of JAX's: the name is the user's function.
    wrapper = written and _path(primal_source).endswith("custom_derivatives.py")
    name = (written[0] if wrapper else primal_source).split(" at ")[0]
    source = (written or sources)[0].split(" at ")[-1]
    return Rule(name, kind, source, site_of(eqn), not written, eqn)


def _sources(roots: Iterable[Any]) -> Iterator[str]:
    """Sources of all functions that JAX's wrappers around a rule's functions hold."""
    todo = list(roots)
    seen: dict[int, Any] = {}
    while todo:
        x = todo.pop(0)
        if x is None or id(x) in seen:
            continue
        seen[id(x)] = x  # kept alive: of what is gone another may have the id
        if isinstance(x, WrappedFun):
            yield x.debug_info.func_src_info or ""
            todo.append(x.f)
        elif isinstance(x, functools.partial):
            todo.append(x.func)
        elif isinstance(x, (tuple, list)):
            todo += x
        elif isinstance(x, types.FunctionType):
            yield _function_source(x)
            # What the user's own function holds says nothing about who wrote the rule,
            # nor do the nondifferentiable arguments of the call.
            if x.__code__.co_filename.startswith(_JAX):
                todo.append(getattr(x, "__wrapped__", None))
                names = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
                todo += [_contents(c) for n, c in names if n != "static_args"]


def _function_source(f: Callable[..., Any]) -> str:
    code = f.__code__
    return f"{f.__name__} at {code.co_filename}:{code.co_firstlineno}"


def _contents(cell: types.CellType) -> Any:
    with contextlib.suppress(ValueError):  # a cell not filled yet
        return cell.cell_contents


def _path(source: str | None) -> str:
    return (source or "").split(" at ")[-1].rsplit(":", 1)[0]


def site_of(eqn: Eqn) -> str:
    """Where the user's code asked for an equation, `file:line`.

    "" if unknown, as where the function asked about is itself the rule or primitive.
    """
    frame = source_info_util.user_frame(eqn.source_info.traceback)
    if frame is None or os.path.dirname(frame.file_name) in _INSTRUMENT:
        return ""
    return f"{frame.file_name}:{frame.start_line}"


def scopes_of(eqn: Eqn) -> tuple[str, ...]:
    """The `jax.named_scope`s that an equation was traced in, outermost first."""
    stack = eqn.source_info.name_stack.stack
    return tuple(s.name for s in stack if isinstance(s, source_info_util.Scope))


def is_batched(eqn: Eqn) -> bool:
    """Whether vmap made it, of another equation or of what is inside it."""
    stack = eqn.source_info.name_stack.stack
    return any(
        isinstance(s, source_info_util.Transform) and s.name == "vmap" for s in stack
    )


_RULE_CALLS = {f"custom_{k}.__call__" for k in ("vjp", "jvp", "vjp3", "jvp3")}
_RULE_CALLS |= {"HiPrim.__call__", "VJPHiPrimitive.__call__"}
_MACHINERY = ("core", "custom_derivatives", "hijax", "linear_util", "source_info_util")
_MACHINERY += ("interpreters/ad", "interpreters/batching", "interpreters/partial_eval")
_MACHINERY += ("traceback_util", "util")
_MACHINERY_FILES = {f"{_JAX}_src/{name}.py" for name in _MACHINERY}


def _differentiated_rule(eqn: Eqn) -> str | None:
    traceback = eqn.source_info.traceback
    function, rule_seen = None, False
    for code in traceback.raw_frames()[0] if traceback else ():  # innermost first
        path = code.co_filename
        if code.co_qualname in _RULE_CALLS and path.startswith(_JAX):
            if function or rule_seen:
                return function
            return f"rule called at {site_of(eqn) or 'an unknown line'}"
        rule_seen |= path not in _MACHINERY_FILES
        if source_info_util.is_user_filename(path):
            function = f"{code.co_name} at {path}:{code.co_firstlineno}"
    return None


# Removing rules

# By the jaxpr they came from: the same jaxpr must give the same object again, or every
# call of a jitted function inside would compile anew.
_rewritten: dict[bool, weakref.WeakKeyDictionary[Jaxpr, Jaxpr]] = {
    keep: weakref.WeakKeyDictionary() for keep in (False, True)
}


def without_rules(jaxpr: Jaxpr, *, keep_jax: bool = True) -> Jaxpr:
    """The jaxpr with its rules replaced by their primals (`keep_jax`: but JAX's own).

    The primal's equations stand where the rule stood; any other equation keeps its
    primitive and has its sub-jaxprs rewritten. A rule that is kept is kept whole.
    """
    cache = _rewritten[keep_jax]
    if jaxpr not in cache:
        new = _rewrite(jaxpr, keep_jax)
        if new is jaxpr:
            return jaxpr
        cache[jaxpr] = new
    return cache[jaxpr]


def with_one_rule(jaxpr: Jaxpr, rule: Rule) -> Jaxpr:
    """`without_rules`, but for one that `find_rules` found in this jaxpr."""
    return _rewrite(jaxpr, rule)


def _rewrite(jaxpr: Jaxpr, keep: bool | Rule) -> Jaxpr:
    if getattr(jaxpr, "jaxpr", jaxpr) is not jaxpr:  # closed, up to jax 0.11
        opened = _without(jaxpr.jaxpr, keep)
        return jaxpr if opened is jaxpr.jaxpr else jaxpr.replace(jaxpr=opened)
    if not any(_dropped(rule, keep) for rule in find_rules(jaxpr)):
        return jaxpr
    env: dict[Any, Any] = {}
    eqns = list(_spliced(jaxpr.eqns, env, keep, gensym()))
    return jaxpr.replace(eqns=eqns, outvars=[_read(env, v) for v in jaxpr.outvars])


def _spliced(eqns, env: dict[Any, Any], keep: bool | Rule, newvar) -> Iterator[Eqn]:
    for eqn in eqns:
        inputs, rule = [_read(env, v) for v in eqn.invars], as_rule(eqn)
        if rule and _dropped(rule, keep):
            body, inputs = primal(eqn, inputs)
            inner = dict(zip(body.invars, inputs, strict=True))
            for var, const in zip(body.constvars, body.consts, strict=True):
                inner[var] = Literal(const, var.aval)
            yield from _spliced(body.eqns, inner, keep, newvar)
            outvars = [_read(inner, v) for v in body.outvars]
        else:
            outvars = [
                v if isinstance(v, DropVar) else newvar(v.aval) for v in eqn.outvars
            ]
            params = eqn.params
            if not rule:
                with _inside(eqn):
                    new = functools.partial(_without, keep=keep)
                    params = {k: mapped(v, new) for k, v in params.items()}
            yield eqn.replace(invars=inputs, outvars=outvars, params=params)
        env.update(zip(eqn.outvars, outvars, strict=True))


def _without(jaxpr: Jaxpr, keep: bool | Rule) -> Jaxpr:
    if isinstance(keep, Rule):
        return _rewrite(jaxpr, keep)
    return without_rules(jaxpr, keep_jax=keep)


def _read(env: dict[Any, Any], atom: Any) -> Any:
    return atom if isinstance(atom, Literal) else env.get(atom, atom)


def _dropped(rule: Rule, keep: bool | Rule) -> bool:
    if isinstance(keep, Rule):
        return not rule.from_jax and rule.eqn is not keep.eqn
    return not (keep and rule.from_jax)


def mapped(param: Any, new: Callable[[Jaxpr], Jaxpr]) -> Any:
    """A parameter of an equation with a new jaxpr for each that it holds."""
    if _is_jaxpr(param):
        return new(param)
    if not isinstance(param, tuple):
        return param
    parts = [mapped(p, new) for p in param]
    if all(a is b for a, b in zip(parts, param, strict=True)):
        return param
    return type(param)(*parts) if hasattr(param, "_fields") else type(param)(parts)


def bodies(eqn: Eqn) -> Iterator[Jaxpr]:
    """The jaxprs in an equation's parameters; of a rule, its primal alone.

    A generator, since a shard_map's body is to be walked with its axis names bound.
    """
    with _inside(eqn):
        yield from [primal(eqn)[0]] if is_rule(eqn) else _jaxprs_of(eqn)


def is_call(eqn: Eqn) -> bool:
    """Whether an equation is its body and nothing more: jit, remat."""
    return eqn.primitive.name in _INLINED


def is_from_jax(jaxpr: Jaxpr) -> bool:
    """Whether the traced function is one of JAX's own, such as `jnp.where`."""
    info = getattr(jaxpr, "jaxpr", jaxpr).debug_info
    return _path(info.func_src_info).startswith(_JAX)


def live(jaxpr: Jaxpr, outputs: Collection[int] | None = None) -> Jaxpr:
    """The open jaxpr without what none of these outputs, or of all, needs."""
    count = len(jaxpr.jaxpr.outvars)
    needed = [outputs is None or k in outputs for k in range(count)]
    return partial_eval.dce_jaxpr(jaxpr.jaxpr, needed)[0]


def evaluate_with(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]):
    """`evaluate`, the constants given too: compiled, they then are arguments."""
    return core.eval_jaxpr(jaxpr.jaxpr, consts, *inputs)


def constants(traced: Any) -> Sequence[Any]:
    """What a traced jit takes from outside beside its arguments."""
    return traced._consts


@contextlib.contextmanager
def unsaved() -> Iterator[None]:
    """What is compiled here is not written to the persistent compilation cache."""
    with config.persistent_cache_min_compile_time_secs(math.inf):
        yield


def _jaxprs_of(eqn: Eqn) -> list[Jaxpr]:
    def inside(param):
        if isinstance(param, tuple):
            return [jaxpr for p in param for jaxpr in inside(p)]
        return [param] if _is_jaxpr(param) else []

    return inside(tuple(eqn.params.values()))


def _is_jaxpr(param: object) -> bool:
    return isinstance(param, (OpenJaxpr, ClosedJaxpr))


@contextlib.contextmanager
def _inside(eqn: Eqn) -> Iterator[None]:
    """Where a shard_map's body is traced: its axis names are bound."""
    if "newly_manual_axes" not in eqn.params:
        yield
        return
    mesh, check_vma = eqn.params["mesh"], eqn.params["check_vma"]
    manual = eqn.params["newly_manual_axes"] | set(mesh.manual_axes)
    sizes = [(name, size) for name, size in mesh.shape.items() if name in manual]
    with core.extend_axis_env_nd(sizes), config._check_vma(check_vma):
        yield


def is_concrete(value: Any) -> bool:
    """Whether a value is known while tracing, and can decide a branch or a loop."""
    return core.is_concrete(value)
