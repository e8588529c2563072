"""compare over the corpus: every wrong rule at its leaf, no alarm on a right one."""

import corpus
import pytest

from jaxbp import compare


def test_the_corpus_is_as_large_as_it_has_to_be():
    assert len(corpus.WRONG) >= 60
    assert len(corpus.RIGHT) >= 30


@pytest.mark.parametrize("name", corpus.WRONG)
def test_a_wrong_rule_is_flagged_at_its_leaf(name):
    rule = corpus.WRONG[name]
    comparison = compare(rule.function(), *rule.args)
    flagged = [f.argument for f in comparison.findings if f.verdict != "right"]
    assert not comparison.ok
    assert rule.blamed in flagged, comparison


@pytest.mark.parametrize("name", corpus.RIGHT)
def test_a_right_rule_raises_no_alarm(name):
    rule = corpus.RIGHT[name]
    comparison = compare(rule.function(), *rule.args)
    assert comparison.ok, comparison


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.WRONG)
def test_a_search_misses_nothing_that_the_callers_point_shows(name):
    rule = corpus.WRONG[name]
    comparison = compare(rule.function(), *rule.args, effort="full")
    flagged = [f.argument for f in comparison.findings if f.verdict != "right"]
    assert not comparison.ok
    assert rule.blamed in flagged, comparison


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.RIGHT)
def test_a_search_invents_nothing(name):
    rule = corpus.RIGHT[name]
    comparison = compare(rule.function(), *rule.args, effort="full")
    assert comparison.ok, comparison
