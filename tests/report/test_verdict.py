"""The verdict is a function of the evidence: no fit is needed to try it."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi
from vijax._draws.diagnosis import Diagnosis, Quantity
from vijax._report.evidence import Evidence, Scores
from vijax._report.mode_search import Starts
from vijax._report.number_format import Rounding
from vijax._report.trajectories import Moved
from vijax._report.verdict import judge


GOOD = Quantity("x[0]", 1.0, 2.0, khat=0.2, mean_stderr=0.02, std_stderr=0.02)
VAGUE = dataclasses.replace(GOOD, khat=0.9)
OFF = dataclasses.replace(GOOD, mean_error=0.3)
NARROW = dataclasses.replace(GOOD, std_error=np.log(0.7))


def weights(*quantities, effective=0.8):
    return Diagnosis(
        khat=0.3,
        effective=effective,
        num_draws=4_096,
        log_evidence=-3.0,
        log_evidence_stderr=0.01,
        quantities=quantities or (GOOD,),
        fewest=0.1,
    )


def evidence(**changes):
    nothing = vi.Estimate(jnp.array(-3.0), jnp.array(0.01))
    good = Evidence(
        result="converged",
        corrected=True,
        weights=weights(),
        log_evidence=nothing,
        elbo=nothing,
        scores=Scores(0.01, 0.02),
        moved=None,
        kernel_stein_discrepancy=None,
        own_starts=Starts(16, 0),
        found_starts=None,
        num_left=0,
        num_modes=1,
        num_evaluations=4_000,
    )
    return dataclasses.replace(good, **changes)


def discrepancy(pvalue):
    value, squared = jnp.array(0.1), jnp.array(0.01)
    return vi.KernelSteinDiscrepancy(value, squared, jnp.array(pvalue))


def test_nothing_speaks_against_a_good_fit():
    verdict = judge(evidence())
    assert verdict.problems == ()
    assert verdict.advice == ""


# {name: (what is not good, words of the one problem)}.
FAULTS = {
    "failed": ({"result": "nonfinite"}, "The run failed"),
    "few": ({"weights": weights(effective=0.05)}, "worth 5.0 % of their number"),
    "no number": ({"weights": weights(effective=np.nan)}, "worth nan %"),
    "vague": ({"weights": weights(GOOD, VAGUE)}, r"of `x\[0\]` has no reliable error"),
    "off": ({"weights": weights(OFF)}, "is off.*`corrected=True`"),
    "narrow": ({"weights": weights(NARROW)}, "standard deviation of .* is off"),
    "vague and off": ({"weights": weights(VAGUE, OFF)}, "no reliable error"),
    "particles": (
        {"weights": weights(OFF), "kernel_stein_discrepancy": discrepancy(0.5)},
        "is off.*Whitened",
    ),
    "elsewhere": ({"own_starts": Starts(1, 2)}, "2 starts came to rest elsewhere, and 1"),
    "a mode": ({"found_starts": Starts(7, 1, 0.3)}, "about 30 % of the mass"),
    "unseen": (
        {"own_starts": Starts(60, 0, 0.0, 0.08)},
        "8 % of the starts led to modes",
    ),
    "not followed": ({"own_starts": Starts(60, 9, 0.2)}, "not followed, hold about 20 %"),
    "coarse": ({"rounding": Rounding(("a",), 0.0)}, "too coarse for `a`"),
    "nowhere": ({"own_starts": Starts(0, 0)}, "No start came to rest"),
    "discrepancy": ({"kernel_stein_discrepancy": discrepancy(0.001)}, "Stein"),
    "left": ({"num_left": 1}, "has 2 modes with mass"),
    "mirrored": (
        {"mirrored": ("x", "y")},
        "other sign of `x`, `y` the target is the same",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_problem(name):
    changes, words = FAULTS[name]
    verdict = judge(evidence(**changes))
    (problem,) = verdict.problems
    assert re.search(words, problem)
    assert "NUTS" in verdict.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"own_starts": Starts(2, 5)},
        {"own_starts": None, "found_starts": Starts(0, 8, 0.005)},
        {"own_starts": None},
        {"rounding": Rounding((), 2.0)},
        {"own_starts": Starts(60, 4, 0.004, 0.03)},
        {"own_starts": Starts(0, 0), "found_starts": Starts(4, 0)},
        {"own_starts": Starts(0, 0), "globals": ("tau",)},
        {"kernel_stein_discrepancy": discrepancy(0.01)},
        {"result": "max_steps"},
    ],
)
def test_what_is_no_fault(changes):
    assert judge(evidence(**changes)).problems == ()


def test_trajectories_speak_where_weights_are_few():
    few = weights(VAGUE, effective=0.01)
    verdict = judge(evidence(weights=few, moved=Moved((GOOD,), 0.7)))
    assert verdict.problems == ()
    assert verdict.diagnosis.acceptance == 0.7
    assert verdict.diagnosis.quantities == (GOOD,)
    assert verdict.diagnosis.effective == 0.01
    # They moved the draws: the weights have the last word.
    for moved in (OFF, NARROW, VAGUE):
        verdict = judge(evidence(weights=few, moved=Moved((GOOD, moved), 0.7)))
        assert len(verdict.problems) == 2
        assert verdict.diagnosis is few
