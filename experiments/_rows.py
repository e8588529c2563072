"""Claims, witnesses and the verdicts between them, which are computed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal, localcontext
from typing import NamedTuple

Formula = Callable[[Mapping[str, float]], float]
SYSTEMS = tuple(f"t{n}" for n in range(1, 13))
_NUMBER = "the printed number"
VERDICTS = ("met", "rounded-inputs", "erratum", "derived")


class Witness(NamedTuple):
    """One scalar, found in three ways.

    `auto` and `numeric` are None where there is nothing to differentiate. `error` is
    the numeric derivative's own estimate, `scale` the largest magnitude in the array
    that the scalar is an element of: what differences are relative to. `rounding` is
    how far rounding may take `auto` from `manual`, where it was measured.
    """

    manual: float
    auto: float | None = None
    numeric: float | None = None
    error: float | None = None
    scale: float | None = None
    rounding: float | None = None


@dataclass(frozen=True)
class Claim:
    """What a page says of a quantity.

    Args:
        quantity: its name, unique among the claims of a system.
        published: the number as printed: its digits are its precision.
        formula: the page's own, over named quantities.
        of: the quantity that the claim is about, where that is not `quantity`: a step
            of a derivation, a number printed a second time.
        erratum: the number under which this project knows the claim to be wrong. A
            label: it decides nothing.
        note: a remark for the reader.
    """

    quantity: str
    published: str | None = None
    formula: Formula | None = None
    of: str | None = None
    erratum: str = ""
    note: str = ""

    @property
    def about(self) -> str:
        return self.of or self.quantity


@dataclass(frozen=True)
class Row:
    """One line of a table. Written are the fields down to `note`."""

    system: str
    quantity: str
    published: float | None
    published_formula: float | None
    manual: float
    auto: float | None
    numeric: float | None
    verdict: str
    note: str = ""
    printed: str | None = None
    error: float | None = None
    scale: float | None = None
    rounding: float | None = None
    erratum: str = ""
    about: str = ""


def tabulate(
    system: str,
    witnesses: Mapping[str, Witness],
    claims: Iterable[Claim] = (),
    given: Mapping[str, float] | None = None,
) -> list[Row]:
    """A row for every claim in order, then one for every witness without a claim.

    Args:
        system: the tutorial system's name.
        witnesses: the quantities, by name.
        claims: what the page says of them.
        given: inputs that formulas may read: nothing to verify, so without a row.
    Raises:
        ValueError: two claims of one name, or a claim about an unknown quantity.
    """
    claims = list(claims)
    page = _Page(witnesses, {c.quantity: c for c in claims}, dict(given or {}))
    for claim in claims:
        if claim.about not in witnesses:
            raise ValueError(f"{system}: no witness for {claim.about!r}")
        if page.claims[claim.quantity] is not claim:
            raise ValueError(f"{system}: {claim.quantity!r} is claimed twice")
    rows = [_row(system, page, claim) for claim in claims]
    claimed = {claim.about for claim in claims}
    free = [Claim(name) for name in witnesses if name not in claimed]
    return rows + [_row(system, page, claim) for claim in free]


def agrees(printed: str, value: float) -> bool:
    """Is `value`, rounded or truncated to the digits of `printed`, that number?"""
    if not math.isfinite(value):
        return float(printed) == value
    # The shortest digits that name a float are not always its rounding.
    return float(printed) == value or Decimal(printed) in (
        _to_digits(value, printed, ROUND_HALF_EVEN),
        _to_digits(value, printed, ROUND_DOWN),
    )


def same(a: float, b: float) -> bool:
    """Equal to 1e-12 of the larger magnitude."""
    return a == b or abs(a - b) <= 1e-12 * max(abs(a), abs(b))


@dataclass(frozen=True)
class _Page:
    """A system's quantities and claims, and its formulas' values in three worlds."""

    witnesses: Mapping[str, Witness]
    claims: Mapping[str, Claim]
    given: Mapping[str, float]

    def true(self, name: str) -> float:
        """The hand-written value."""
        if name in self.given:
            return self.given[name]
        about = self.claims[name].about if name in self.claims else name
        if about not in self.witnesses:
            raise ValueError(f"a formula reads {name!r}, which no witness knows")
        return self.witnesses[about].manual

    def printed(self, name: str) -> float:
        """The published number where one is printed."""
        claim = self.claims.get(name)
        return float(claim.published) if claim and claim.published else self.true(name)

    def published(self, name: str, within: tuple[str, ...] = ()) -> float:
        """The published formula, all the way down."""
        claim = self.claims.get(name)
        if claim is None or claim.formula is None or name in within:
            return self.true(name)
        inner = (*within, name)
        return claim.formula(_Lookup(lambda other: self.published(other, inner)))

    def verdict(self, claim: Claim, within: tuple[str, ...] = ()) -> str:
        truth = self.true(claim.about)
        number, formula = claim.published, claim.formula
        if number is None and formula is None:
            return "derived"
        right = formula is None or same(formula(_Lookup(self.true)), truth)
        if right and (number is None or agrees(number, truth)):
            return "met"
        if right and formula and number:
            rounded = agrees(number, self._at_printed(formula))
            # A number that follows from a wrong operand is wrong, not rounded.
            sound = not self._wrong_operands(formula, (*within, claim.quantity))
            return "rounded-inputs" if rounded and sound else "erratum"
        return "erratum"

    def faults(self, claim: Claim) -> list[str]:
        """The links at fault in a claim that is wrong, the first one first."""
        number, formula = claim.published, claim.formula
        truth, found = self.true(claim.about), []
        if formula is None:
            return [_NUMBER]
        if not same(formula(_Lookup(self.true)), truth):
            found.append("the formula itself")
        wrong = self._wrong_operands(formula, (claim.quantity,))
        found += [f"its operand {name}" for name in wrong]
        worlds = (self.true, self.printed, self.published)
        values = [formula(_Lookup(world)) for world in worlds]
        if number and not any(agrees(number, v) for v in values):
            own = _as_printed(values[1], number)
            found.append(f"the arithmetic: the page's own factors give {own}")
        return found or [_NUMBER]

    def step_before(self, claim: Claim) -> Claim | None:
        """The first wrong step, where `claim` is a later one of the same derivation."""
        for other in self.claims.values():
            if other is claim:
                return None
            if other.about == claim.about and self.verdict(other) == "erratum":
                return other
        return None

    def _wrong_operands(self, formula: Formula, within: tuple[str, ...]) -> list[str]:
        reading = _Lookup(self.true)
        formula(reading)
        names = [n for n in reading.names if n in self.claims and n not in within]
        return [n for n in names if self.verdict(self.claims[n], within) == "erratum"]

    def _at_printed(self, formula: Formula) -> float:
        return formula(_Lookup(self.printed))


@dataclass
class _Lookup(Mapping[str, float]):
    """A mapping that keeps the names it was asked for: a formula's operands."""

    value: Callable[[str], float]
    names: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> float:
        if name not in self.names:
            self.names.append(name)
        return self.value(name)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def _row(system: str, page: _Page, claim: Claim) -> Row:
    witness, verdict = page.witnesses[claim.about], page.verdict(claim)
    faults = []
    if verdict == "erratum":
        first = page.step_before(claim)
        faults = page.faults(claim)
        faults += [f"the first wrong step is {first.quantity}"] if first else []
    elif verdict == "rounded-inputs":
        faults = ["met with the page's own rounded operands"]
    said = "; ".join([*faults, *([claim.note] if claim.note else [])])
    formula = page.published(claim.quantity) if claim.formula else None
    return Row(
        system=system,
        quantity=claim.quantity,
        published=float(claim.published) if claim.published else None,
        published_formula=formula,
        manual=witness.manual,
        auto=witness.auto,
        numeric=witness.numeric,
        verdict=verdict,
        note=": ".join(part for part in (claim.erratum, said) if part),
        printed=claim.published,
        error=witness.error,
        scale=witness.scale,
        rounding=witness.rounding,
        erratum=claim.erratum,
        about=claim.about,
    )


def _as_printed(value: float, printed: str) -> str:
    finite = math.isfinite(value)
    return f"{_to_digits(value, printed, ROUND_HALF_EVEN) if finite else value:+}"


def _to_digits(value: float, printed: str, rounding: str) -> Decimal:
    with localcontext(prec=1000):
        return Decimal(value).quantize(Decimal(printed), rounding=rounding)
