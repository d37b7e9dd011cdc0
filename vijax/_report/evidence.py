"""The evidence: all draws, weights, scores and starts of a report, gathered once."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from .._auto.judgement import are_covered, SECOND_LOOK
from .._auto.stages import agreement, AutoState
from .._custom_types import Key
from .._diagnostic.base import Estimate
from .._diagnostic.elbo import elbo
from .._diagnostic.kernel_stein_discrepancy import (
    kernel_stein_discrepancy,
    KernelSteinDiscrepancy,
)
from .._draws.correction import (
    chosen_correction,
    IMPORTANCE,
    NONE,
    Parts,
    RESAMPLE_MOVE,
)
from .._draws.diagnosis import diagnose, Diagnosis, with_own_moments
from .._draws.draw import drawn, proposed
from .._draws.draws import Draws
from .._draws.hamiltonian import own_coordinates
from .._draws.particle_draws import check_particles, each_particle
from .._draws.proposal import heavy_tailed
from .._draws.psis import NUM_DRAWS
from .._family.base import AbstractFamily
from .._family.point_estimates import PointEstimates
from .._keys import key_for, split_key
from .._method.auto_next import AutoNext, AutoNextState
from .._misc import float_dtype
from .._nested.state import NestedState
from .._run.fit_result import Fit
from .._run.results import name_of
from .._target.given import given
from .._target.probe import HostProbe
from .mirror_images import missing_image
from .mode_search import search_for_modes, Starts
from .number_format import Rounding, rounding
from .trajectories import Moved, moved


# Numbers for keys of their own.
_SIGNING, _STARTING, _MOVING = 0x516, 0x57A7, 0x30E
# With so many starts of its own a method has looked for modes.
_ENOUGH_STARTS = 4
# Beyond, the search for modes holds matrices that are too large.
_MOST_DIM = 1_000
# Where the k-hat of a quantity may be too large, more draws decide.
_UNSURE = 0.6
# Draws at which the scores of both densities are compared.
_SCORE_DRAWS = 256


class Scores(NamedTuple):
    """Score discrepancies: of a coordinate on average, and of the worst."""

    mean: float
    worst: float


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All figures of a report; what they mean is not decided here.

    **Attributes:**

    - `result`: why the run ended, by the name of a member of [`vijax.RESULTS`][].
    - `corrected`: whether `fit.draw` corrects its draws by importance.
    - `weights`: the diagnosis of the weighted draws; with how far the family's own
        moments are from theirs, where draws are not corrected.
    - `log_evidence`: as the weights have it.
    - `elbo`: of the family; `None` for particles.
    - `scores`: the score discrepancies of the coordinates; `None` for particles.
    - `moved`: where the weights are few, draws at the ends of trajectories; `None` where
        nobody looked, or these say nothing.
    - `kernel_stein_discrepancy`: of particles; `None` for another family.
    - `own_starts`: where the method's starts came to rest; `None` if it had few.
    - `found_starts`: where those of the report did; `None` if there were none.
    - `num_left`: how many modes with mass the method found, but did not follow.
    - `num_modes`: how many modes the family has.
    - `num_evaluations`: how many gradients the method took; `None` if unknown.
    - `estimates`: parameters that are numbers, which all the rest is given.
    - `mirrored`: parameters whose signs leave the target as it is, but not the family.
    - `globals`: those given which the others are nearly Gaussian, by a nested answer.
    - `rounding`: how fine the target's numbers are, where the answer is.
    """

    result: str
    corrected: bool
    weights: Diagnosis
    log_evidence: Estimate
    elbo: Estimate | None
    scores: Scores | None
    moved: Moved | None
    kernel_stein_discrepancy: KernelSteinDiscrepancy | None
    own_starts: Starts | None
    found_starts: Starts | None
    num_left: int
    num_modes: int
    num_evaluations: int | None
    estimates: tuple[str, ...] = ()
    mirrored: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()
    rounding: Rounding = Rounding((), 0.0)


def gather(fit: Fit, key: Key, num_draws: int, num_starts: int) -> Evidence:
    """Look at a fit with so many draws, and starts where the method had few."""
    family, target = fit.family, fit.target
    estimates = target.model.point_names
    if isinstance(family, PointEstimates):
        # What is judged is the rest, given these.
        family, target = family.family, given(target, family.values)
    proposal_key, plain_key = split_key(key)
    ksd = None
    probe = HostProbe(target)
    if family.has_density:
        smooth, plain = family, drawn(family, probe, num_draws, plain_key, {})
    else:
        smooth, plain = check_particles(family), each_particle(family, target)
        ksd = kernel_stein_discrepancy(plain.x, target, key=key_for(key, _SIGNING))
    proposal = fit.proposal
    corrected = proposal is not None
    proposal = heavy_tailed(smooth) if proposal is None else proposal
    weights = _weighed(proposal, probe, num_draws, proposal_key)
    if not corrected:
        quantities = with_own_moments(weights.quantities, plain)
        weights = dataclasses.replace(weights, quantities=quantities)
    x = np.asarray(plain.x, np.float64)
    scores, ends = None, None
    if family.has_density:
        gaps = _discrepancies(family, probe, x)
        scores = Scores(float(np.mean(gaps)), float(np.max(gaps)))
        parts, moving_key = Parts(family, proposal, probe), key_for(key, _MOVING)
        ends, weights = _by_the_procedure(fit, parts, plain, scores, weights, moving_key)
    own = _own_starts(fit, weights.log_evidence)
    found = None
    if not _is_surveyed(fit) and num_starts > 0 and target.dim <= _MOST_DIM:
        found = search_for_modes(
            probe,
            x,
            weights.log_evidence,
            key=key_for(key, _STARTING),
            num_starts=num_starts,
        )
    # Parts of a mixture that was fitted to weighted draws are no modes.
    is_nested = isinstance(fit.state, NestedState)
    components = None if is_nested else getattr(family, "logits", None)
    return Evidence(
        result=name_of(fit.result),
        corrected=corrected,
        weights=weights,
        log_evidence=_log_evidence(plain, weights),
        elbo=elbo(plain) if family.has_density else None,
        scores=scores,
        moved=ends,
        kernel_stein_discrepancy=ksd,
        own_starts=own,
        found_starts=found,
        num_left=getattr(fit.problem.method, "num_left", 0),
        num_modes=1 if components is None else components.size,
        num_evaluations=_evaluations(fit),
        estimates=estimates,
        mirrored=_mirrored(family, probe, x),
        globals=fit.globals,
        rounding=rounding(probe, x),
    )


def _mirrored(family: AbstractFamily, probe: HostProbe, x: np.ndarray) -> tuple[str, ...]:
    on_host = family.on_host() if family.has_density else None
    return () if on_host is None else missing_image(probe, on_host, x)


def _weighed(
    proposal: AbstractFamily, probe: HostProbe, num_draws: int, key: Key
) -> Diagnosis:
    diagnosis = diagnose(proposed(proposal, probe, num_draws, key))
    if diagnosis.worst_khat > _UNSURE and not diagnosis.has_few:
        # A k-hat is known to a tenth only, and of many one is large by chance.
        num_draws *= SECOND_LOOK
        diagnosis = diagnose(proposed(proposal, probe, num_draws, key))
    return diagnosis


def _discrepancies(family: AbstractFamily, probe: HostProbe, x: np.ndarray) -> np.ndarray:
    """`E (root' (score p - score q))^2` of each coordinate where the family has unit
    covariance."""
    coordinates, x = own_coordinates(family, x), x[:_SCORE_DRAWS]
    on_host = family.on_host()
    own = np.asarray(_scores(family, x)) if on_host is None else on_host.score(x)
    _, _, scores = probe.raw(x)
    with np.errstate(all="ignore"):
        return np.mean(coordinates.score_inside(scores - own) ** 2, axis=0)


@eqx.filter_jit
def _scores(family: AbstractFamily, x: Any) -> Any:
    x = x.astype(float_dtype(family))
    # One after the other: as much memory as one gradient takes.
    return jax.lax.map(jax.grad(family.log_prob), x, batch_size=16)


def _history(fit: Fit) -> AutoState | None:
    state = fit.state
    state = state.before if isinstance(state, AutoNextState | NestedState) else state
    return state if isinstance(state, AutoState) else None


def _by_the_procedure(
    fit: Fit, parts: Parts, plain: Draws, scores: Scores, weights: Diagnosis, key: Key
) -> tuple[Moved | None, Diagnosis]:
    """What the procedure by which the fit corrects its draws comes to, if that is not by
    weights alone; there weights say nothing, however many they happen to be worth."""
    kind = fit.correction
    if kind == IMPORTANCE or (kind == NONE and not weights.has_few):
        return None, weights
    if isinstance(fit.family, PointEstimates):
        correction = chosen_correction(parts, key)
    else:
        correction = fit.found_correction
    ends = moved(parts, correction, plain, scores.worst, key)
    if kind == RESAMPLE_MOVE:
        weights = dataclasses.replace(weights, fewest=np.inf)
    return ends, weights


def _is_surveyed(fit: Fit) -> bool:
    """Whether the method itself has looked for modes from all around the answer."""
    state = _history(fit)
    return state is not None and int(state.survey.num_at_rest) > 0


def _own_starts(fit: Fit, log_evidence: float) -> Starts | None:
    state = _history(fit)
    if state is None or state.tried.size < _ENOUGH_STARTS:
        return None
    survey = jax.tree.map(np.asarray, state.survey)
    at_rest, apart = int(survey.num_at_rest), int(survey.num_apart)
    near, unseen = at_rest - apart, int(survey.num_once) / max(at_rest, 1)
    if at_rest == 0:
        near, apart = agreement(state)
    if isinstance(fit.state, NestedState) and fit.proposal is not None:
        # Optima that the Gaussian is not at may be in the answer all the same, and paths
        # that climb for ever may be within it.
        paths = jax.tree.map(np.asarray, state.paths)
        finite = np.isfinite(paths.log_p)
        x, log_p, ended = (v[finite] for v in (paths.x, paths.log_p, paths.converged))
        covered = are_covered(fit.proposal, log_evidence, x, log_p)
        near, apart = int(covered.sum()), min(apart, int((~covered & ended).sum()))
    return Starts(near, apart, float(survey.left), unseen)


def _log_evidence(plain: Draws, diagnosis: Diagnosis) -> Estimate:
    numbers = diagnosis.log_evidence, diagnosis.log_evidence_stderr
    dtype = plain.log_p.dtype
    return Estimate(*jax.device_put(tuple(dtype.type(number) for number in numbers)))


def _evaluations(fit: Fit) -> int | None:
    """Gradients of all stages, and the weighed draws that chose between these."""
    method, state = fit.problem.method, _history(fit)
    if state is None:
        counted = getattr(fit.state, "num_evaluations", None)
        return None if counted is None else int(counted)
    made = int(state.num_evaluations)
    if isinstance(fit.state, NestedState):
        made += int(fit.state.num_evaluations) + NUM_DRAWS
    if isinstance(method, AutoNext):
        if method.step_evaluations is None:
            return None
        num_steps = int(fit.num_steps)
        judged = 1 + (num_steps > (method.num_steps or num_steps))
        made += method.step_evaluations * num_steps + judged * NUM_DRAWS
    return made + NUM_DRAWS
