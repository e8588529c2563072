"""audit(f, *args): every hand-written rule inside f, asked where it is called."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp import _jaxpr
from jaxbp._arguments import (
    check_closed,
    check_concrete,
    check_numbers,
    checked,
    leaves_with_paths,
    traceable,
    whole,
)
from jaxbp._errors import first_line, function_name
from jaxbp.instrument._arms import Arms
from jaxbp.instrument._comparison import Verdict, worst_of
from jaxbp.instrument._compiled import Programs
from jaxbp.instrument._coverage import Coverage
from jaxbp.instrument._findings import Audit, LinkFinding
from jaxbp.instrument._links import question
from jaxbp.instrument._met import Call, Link, met_links
from jaxbp.instrument._pair import Pair
from jaxbp.instrument._program import in_float64
from jaxbp.instrument._witnesses import Witness

_WIDE = 8  # bytes of a float64


@jax.disable_jit(False)  # it takes a hundred times as long
@jax.debug_nans(False)  # what is not finite is an answer
@jax.debug_infs(False)
@traceable("audit")
def audit(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Audit:
    r"""Ask every hand-written rule that `f` meets whether it is right, where it is met.

    One sweep forward and one back over `f(*args)` give, at every call $y = p(x)$ of a
    rule (`jax.custom_vjp`, `jax.custom_jvp`), its values and the cotangent $\bar y$
    that arrives. There M, the rule's VJP, is held against A, the VJP of $p$ with all
    rules removed, in float64, under the tolerance and the numeric witness of `compare`;
    for $\bar y$ and for two random cotangents, since one of zeros proves nothing.
    Rules are found inside jit, scan, while, cond, remat and vmap, and in the primals of
    other rules. In a while loop, where no cotangent arrives, the random ones ask.

    A rule that is a whole chain with its wires named on both sides (`a2` in the forward
    pass, `a2_bar` in its bwd) is also held against autodiff wire by wire: the first
    that is wrong, while those between it and the loss are right, is the wrong link.

    JAX's own rules (`jax.nn.relu`) are asked where `f` meets them, since a program can
    go wrong there as well as anywhere; inside another rule's primal they belong to
    autodiff and are not.

    Args:
        f: any JAX function.
        *args: where to ask. Float and complex leaves are differentiated.
        kwargs: keyword arguments of `f`, differentiated alike.
        seed: of the random cotangents; also of f's own, where it is no real scalar.
    Returns:
        Audit: `.ok`, `.verdict`, `.findings` from the loss backwards, one a rule and
        place, each with `.rule`, `.site`, `.source`, `.wire`, `.calls`; `.first`, the
        first wrong one, or else the first unproven; `str()` is a table. An `f` that
        meets no rule is `unproven`.
    Raises:
        TypeError: `f` is not callable, or a value is traced: call it at the top level.
        ValueError: NaN among the arguments, a negative seed.

    Limits: it asks at these arguments alone, `compare` looks elsewhere too. Of a long
    scan the first, the last and four other iterations are asked, of a while loop
    iterations 0, 1, 2, 4, 8, … and the last. Of a cond only the branch that is taken
    is; `.note` tells of a rule in another. Rules inside a shard_map are asked by its
    own values and cotangents. Noise drawn in the default dtype is other noise in
    float64. Of rules that `f` has differentiated itself nothing is left to ask: they
    are listed.
    """
    kwargs, seed = checked("audit", f, args, kwargs), whole("audit", "seed", seed, 0)
    leaves = leaves_with_paths(args, kwargs)
    check_concrete("audit", leaves)
    check_numbers("audit", leaves)
    met = _met(f, args, kwargs, seed)
    findings = met.asked(seed)
    notes = met.untold(findings)
    verdicts: list[Verdict] = [finding.verdict for finding in findings]
    if met.closed:
        inside = ", ".join(met.closed)
        notes.append(f"not asked, since run whole: rules inside {inside}")
        verdicts.append("unproven")
    if hidden := _jaxpr.differentiated(met.program.jaxpr):
        notes.append(
            f"out of reach, since f has differentiated it: {', '.join(hidden)}; audit "
            "the function that f differentiates"
        )
        verdicts.append("unproven")
    if not findings:
        notes.append("f meets no hand-written rule")
    return Audit(function_name(f), worst_of(verdicts), findings, "; ".join(notes))


class _Met(NamedTuple):
    """The program, the rules that it met, what holds others, why no float64."""

    program: _jaxpr.Program
    links: list[Link]
    closed: list[str]
    refused: str = ""

    def asked(self, seed: int) -> tuple[LinkFinding, ...]:
        """The findings, from the loss backwards."""
        programs, pairs = Programs(), {}

        def pair(call: Call) -> Pair:
            key = (id(call.eqn), id(call.kept.eqn) if call.kept else None)
            if key not in pairs:
                around = call.alone, call.kept
                pairs[key] = Pair(call.eqn, call.inputs, programs, *around)
            return pairs[key]

        with self._precision():
            found = [question(link, pair, seed) for link in self.links]
        found.sort(key=lambda pair: pair[0])
        return tuple(finding for _, finding in found)

    def untold(self, findings: Sequence[LinkFinding]) -> list[str]:
        """What the findings do not say: another precision, branches not taken."""
        notes = []
        # Where it is the rule itself that raises, it does in any dtype.
        if self.refused and not any(self.refused in f.message for f in findings):
            why = f"float64 does not trace: {self.refused}"
            notes.append(f"asked in the caller's dtype, {why}")
        with self._precision():
            not_taken = _not_taken(self.program)
        return [*notes, not_taken] if not_taken else notes

    def _precision(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.refused else jax.enable_x64(True)


def _met(f, args, kwargs, seed) -> _Met:
    """One sweep over `f`, in float64 or else in the caller's dtype."""
    narrow = min(map(_bytes, jax.tree.leaves((args, kwargs))), default=_WIDE)
    narrow = narrow if narrow < _WIDE else 0

    def swept(args, kwargs, strict) -> _Met:
        program = _jaxpr.trace(f, args, kwargs)
        check_closed("audit", program.jaxpr)
        return _Met(program, *met_links(program, seed, strict))

    try:
        with jax.enable_x64(True):
            wide_args, wide_kwargs = jax.tree.map(in_float64, (args, kwargs))
            met = swept(wide_args, wide_kwargs, narrow > 0)
    except Exception as error:
        return swept(args, kwargs, False)._replace(refused=first_line(error))
    for link in met.links:
        link.widened = narrow
    return met


def _not_taken(program) -> str:
    """Which branches that hold a rule are not taken; "" where all are."""
    if not any(branch.rules for branch in Arms().branches(program.jaxpr)):
        return ""
    return Coverage(Witness(program.jaxpr, [], []), program.inputs).unproven


def _bytes(leaf) -> int:
    """Of its floating numbers, or of their real and imaginary parts."""
    if not _jaxpr.is_differentiable(leaf):
        return _WIDE
    return jnp.finfo(jnp.result_type(leaf)).bits // 8
