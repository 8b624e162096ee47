"""The mixed-effects model against R's glmmTMB, whose figures benchmarks/glmmtmb.json holds."""

import json

import pytest
from benchmarks import glmmtmb

STORED = json.loads(glmmtmb.REFERENCE.read_text())


@pytest.mark.parametrize(
    "case", [case for case in glmmtmb.CASES if case.name in STORED], ids=lambda case: case.name
)
def test_agrees_with_glmmtmb(case):
    """The same model and approximation: log-likelihood to .01, estimates to 1e-3."""
    theirs = glmmtmb.Fit(**STORED[case.name], seconds=0.0)
    ours = glmmtmb.fit_ours(case, glmmtmb.simulate(case))
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, abs=0.01)
    difference, where = glmmtmb.largest_difference(ours, theirs)
    assert difference < 1e-3, where


@pytest.mark.skipif(not glmmtmb.has_glmmtmb(), reason="needs R with glmmTMB")
def test_the_reference_is_what_glmmtmb_says():
    case = glmmtmb.CASES[0]
    now = glmmtmb.fit_glmmtmb(case, glmmtmb.simulate(case))
    assert now.log_likelihood == pytest.approx(STORED[case.name]["log_likelihood"], abs=1e-3)
