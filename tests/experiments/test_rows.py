"""Verdicts are computed: on a page made up for the purpose."""

import math

import pytest

from experiments._rows import Claim, Witness, agrees, same, tabulate

WITNESSES = {"a": Witness(2.0), "b": Witness(0.0972), "p": Witness(0.1944, 0.1944)}
product = lambda v: v["a"] * v["b"]


def verdicts(*claims, given=None):
    return {r.quantity: r for r in tabulate("X", WITNESSES, claims, given)}


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("0.1192", 0.11920292202211755),
        ("0.9525", 0.9525741268224334),  # truncated
        ("0.9526", 0.9525741268224334),  # rounded
        ("-0.46", -0.4593280218374576),
        ("-6.4e-3", -0.00649),
        ("-4", -4.0),
        ("-0.4", -0.42),
        ("0.80", 0.8021838885585817),
        ("0.5180464037927469", 0.5180464037927469),
        ("1e300", 1e300),
        ("inf", math.inf),
    ],
)
def test_a_printed_number_is_a_rounding_or_a_truncation(printed, value):
    assert agrees(printed, value)


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("0.9527", 0.9525741268224334),
        ("0.029", -0.029),
        ("-0.46", -0.4799),
        ("0.0979", 0.09719470480062539),
        ("2", math.nan),
        ("2", math.inf),
    ],
)
def test_another_number_is_not(printed, value):
    assert not agrees(printed, value)


def test_formulas_are_held_to_1e_12():
    assert same(1.0, 1.0 + 9e-13)
    assert not same(1.0, 1.0 + 2e-12)
    assert same(0.0, -0.0)
    assert not same(0.0, 1e-300)


def test_met_by_number_by_formula_and_by_both():
    rows = verdicts(
        Claim("a", "2"),
        Claim("b", formula=lambda v: 0.0972),
        Claim("p", "0.19", product),
    )
    assert [row.verdict for row in rows.values()] == ["met"] * 3
    assert rows["p"].published == 0.19
    assert rows["p"].published_formula == pytest.approx(0.1944)
    assert rows["p"].printed == "0.19"


def test_what_nobody_claims_is_derived():
    rows = verdicts(Claim("a", "2"))
    assert rows["p"].verdict == rows["b"].verdict == "derived"
    assert rows["p"].published is rows["p"].published_formula is None


def test_a_remark_without_number_or_formula_claims_nothing():
    assert verdicts(Claim("a", note="an input"))["a"].verdict == "derived"


def test_a_number_from_the_page_s_rounded_operands():
    rows = verdicts(Claim("b", "0.097"), Claim("p", "0.1940", product))
    assert rows["b"].verdict == "met"
    assert rows["p"].verdict == "rounded-inputs"


def test_a_number_from_a_wrong_operand_is_not_rounded():
    rows = verdicts(Claim("b", "0.15"), Claim("p", "0.30", product))
    assert rows["p"].verdict == "erratum"
    assert rows["p"].note == "its operand b"


def test_a_wrong_formula_is_named():
    row = verdicts(Claim("p", formula=lambda v: v["a"] + v["b"]))["p"]
    assert row.verdict == "erratum"
    assert row.note == "the formula itself"
    assert row.published_formula == pytest.approx(2.0972)


def test_a_wrong_formula_and_a_wrong_operand_are_both_named():
    rows = verdicts(
        Claim("b", formula=lambda v: v["a"]), Claim("p", formula=lambda v: -product(v))
    )
    assert rows["p"].note == "the formula itself; its operand b"
    # The column goes down through published formulas, wrong ones too.
    assert rows["p"].published_formula == -4.0


def test_lost_sign_is_arithmetic():
    row = verdicts(Claim("b", "0.0972"), Claim("p", "-0.194", product))["p"]
    assert row.verdict == "erratum"
    assert "the arithmetic: the page's own factors give +0.194" in row.note


def test_arithmetic_that_overflows_is_said_too():
    row = verdicts(Claim("p", "2", lambda v: v["a"] * math.inf))["p"]
    assert row.note.endswith("the page's own factors give +inf")


def test_a_wrong_number_alone_is_the_printed_number():
    assert verdicts(Claim("a", "3"))["a"].note == "the printed number"


def test_of_a_derivation_the_first_wrong_step_is_named():
    rows = verdicts(
        Claim("step 1", formula=product, of="p"),
        Claim("step 2", formula=lambda v: v["a"], of="p"),
        Claim("step 3", formula=lambda v: v["step 2"] + 1, of="p"),
    )
    assert rows["step 1"].verdict == "met"
    assert rows["step 2"].note == "the formula itself"
    assert rows["step 3"].note.endswith("the first wrong step is step 2")
    assert rows["step 3"].manual == rows["step 1"].manual == 0.1944


def test_given_inputs_are_operands_without_a_row():
    rows = verdicts(Claim("p", formula=lambda v: v["x"] * v["b"]), given={"x": 2.0})
    assert rows["p"].verdict == "met"
    assert "x" not in rows


def test_the_label_stands_in_the_note_and_decides_nothing():
    right, wrong = Claim("a", "2", erratum="E1"), Claim("b", "0.2", erratum="E2")
    rows = verdicts(right, wrong)
    assert rows["a"].verdict == "met"
    assert rows["b"].note == "E2: the printed number"


def test_formulas_that_read_each_other_come_to_an_end():
    rows = verdicts(
        Claim("a", "9", lambda v: v["p"] / v["b"]), Claim("p", "9", product)
    )
    assert rows["a"].verdict == rows["p"].verdict == "erratum"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([Claim("q", "1")], "X: no witness for 'q'"),
        ([Claim("a", "2"), Claim("a", "3")], "X: 'a' is claimed twice"),
        ([Claim("a", formula=lambda v: v["?"])], "a formula reads '\\?'"),
    ],
)
def test_a_page_that_contradicts_itself_is_refused(claims, message):
    with pytest.raises(ValueError, match=message):
        tabulate("X", WITNESSES, claims)
