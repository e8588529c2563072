"""Labels and verdicts coincide; a perturbed claim comes out, a mended one goes."""

import dataclasses
import math
from decimal import Decimal

import pytest

from experiments._rows import SYSTEMS, VERDICTS, tabulate
from experiments._told import disagreements
from experiments.errata import WRONG, collect

systems = pytest.mark.parametrize("name", SYSTEMS)


def redo(tabulated, change):
    """The pairs (claim, row) of a system whose claims went through `change`."""
    for system, witnesses, claims, given in tabulated:
        for claim in claims:
            changed = change(claim, witnesses)
            if changed is None:
                continue
            others = [changed if c is claim else c for c in claims]
            rows = {r.quantity: r for r in tabulate(system, witnesses, others, given)}
            yield claim, rows[claim.quantity]


def nudged(printed, units):
    """Some units of the last digit more; of one that a float can tell apart."""
    number = Decimal(printed)
    last = Decimal(1).scaleb(int(number.as_tuple().exponent))
    ulp = Decimal(math.ulp(float(number)))
    return str(number + units * (last if last > ulp else 10 * last))


@systems
def test_labels_are_where_the_numbers_say(ran, name):
    for row in ran(name).report.rows:
        assert row.verdict in VERDICTS
        assert bool(row.erratum) == (row.verdict in WRONG), row


@systems
def test_labels_decide_nothing(ran, name):
    for system, witnesses, claims, given in ran(name).tabulated:
        bare = [dataclasses.replace(c, erratum="") for c in claims]
        wrong = [dataclasses.replace(c, erratum="E99") for c in claims]
        verdicts = [
            [row.verdict for row in tabulate(system, witnesses, some, given)]
            for some in (claims, bare, wrong)
        ]
        assert verdicts[0] == verdicts[1] == verdicts[2]


@systems
def test_witnesses_agree(ran, name):
    assert disagreements(ran(name).report.rows) == []


@systems
@pytest.mark.parametrize("units", [-2, 2])
def test_a_wrong_last_digit_comes_out(ran, name, units):
    def change(claim, witnesses):
        if claim.published is None:
            return None
        return dataclasses.replace(claim, published=nudged(claim.published, units))

    right = {r.quantity for r in ran(name).report.rows if r.verdict == "met"}
    for claim, row in redo(ran(name).tabulated, change):
        if claim.quantity in right:
            assert row.verdict in WRONG, claim


@systems
@pytest.mark.parametrize("factor", [-1, 1 + 1e-10])
def test_a_wrong_formula_comes_out(ran, name, factor):
    def change(claim, witnesses):
        if claim.formula is None or witnesses[claim.about].manual == 0:
            return None
        formula = lambda v: factor * claim.formula(v)
        return dataclasses.replace(claim, formula=formula)

    right = {r.quantity for r in ran(name).report.rows if r.verdict == "met"}
    for claim, row in redo(ran(name).tabulated, change):
        if claim.quantity in right:
            assert row.verdict == "erratum", claim
            assert "the formula itself" in row.note


@systems
def test_a_corrected_claim_goes(ran, name):
    def change(claim, witnesses):
        truth = witnesses[claim.about].manual
        return dataclasses.replace(claim, published=repr(truth), formula=None)

    for claim, row in redo(ran(name).tabulated, change):
        assert row.verdict == "met", claim


def test_every_known_erratum_is_found(ran):
    rows = collect({name: ran(name).report for name in SYSTEMS}).rows
    assert {row.erratum for row in rows} == {f"E{n}" for n in range(1, 13)}
    assert all(row.note.startswith(f"{row.erratum}: ") for row in rows)
