"""The verdict on a fit."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._auto.stages import agreement, AutoState
from .._custom_types import Key
from .._diagnostic.base import Estimate
from .._diagnostic.elbo import elbo
from .._diagnostic.kernel_stein_discrepancy import (
    kernel_stein_discrepancy,
    KernelSteinDiscrepancy,
)
from .._draws.diagnosis import diagnose, Diagnosis, Quantity
from .._draws.draws import draw
from .._draws.hamiltonian import own_coordinates
from .._draws.importance_correction import proposed
from .._draws.particle_draws import check_particles, each_particle
from .._draws.proposal import heavy_tailed
from .._draws.psis import NUM_DRAWS
from .._family.base import AbstractFamily
from .._method.auto_next import AutoNext, AutoNextState
from .._misc import as_key, as_whole, key_for, split_key
from .._run.fit_result import Fit
from .._run.results import name_of, RESULTS
from .._target.target import Target
from .mode_search import other_modes
from .text import as_text
from .trajectories import settled
from .verdict import ADVICE, problems_of, with_own_moments


# Numbers for keys of their own.
_SIGNING, _STARTING, _MOVING = 0x516, 0x57A7, 0x30E
# With so many starts of its own a method has looked for modes.
_ENOUGH_STARTS = 4
# Beyond, the search for modes holds matrices that are too large.
_MOST_DIM = 1_000
# Where the k-hat of a quantity may be too large, so many times the draws decide.
_UNSURE, _SECOND_LOOK = 0.6, 4
# Draws at which the scores of both densities are compared.
_SCORE_DRAWS = 256


@dataclasses.dataclass(frozen=True)
class Report:
    r"""What is known of how good a fit is. It prints as a verdict in words and a table.

    **Attributes:**

    - `trustworthy`: whether means and standard deviations of all parameters can be
        relied on: those of `fit.draw(n, key=key)`. It is `True` if `problems` is empty.
    - `problems`: what speaks against it, in sentences.
    - `advice`: what to do.
    - `result`: why the run ended: the name of a member of [`vijax.RESULTS`][].
    - `corrected`: whether `fit.draw` corrects its draws by importance, so that the
        verdict is about corrected draws.
    - `elbo`: the ELBO of the family, in nats, and its standard error; `None` for
        particles, which have no density.
    - `log_evidence`: the importance-weighted estimate of the log evidence, and its
        standard error. The ELBO is below it by the divergence of the family.
    - `khat`: the Pareto k-hat of the weights.
    - `effective`: the effective sample size over the number of draws.
    - `num_draws`: how many draws were weighted.
    - `quantities`: of each number of the posterior its mean, standard deviation and how
        well these are known, worst first: see `name`, `mean`, `std`, `khat`,
        `mean_stderr`, `std_stderr`, `mean_error`, `std_error`.
    - `score_discrepancy`: $\mathbb{E}_q \|\nabla \log p - \nabla \log q\|^2$ in units
        where the family has unit covariance, a coordinate; zero only if the two are the
        same; `None` for particles.
    - `worst_score_discrepancy`: that of the worst of these coordinates.
    - `acceptance`: where the weights are too few to say anything, but Hamiltonian
        trajectories leave the draws where they are, the part of these that was accepted.
        There `quantities` are of draws at the ends of trajectories, and `mean_error` and
        `std_error` how far the family's own are from these. Else `None`.
    - `kernel_stein_discrepancy`: that of particles; `None` for other families.
    - `num_agreeing`, `num_apart`: how many starts came to rest where the family is, and
        elsewhere: those of the method, or if it had few, of the report. `None` if there
        were none.
    - `other_share`: the part of the mass, by Laplace's approximation, at the best mode
        that starts of the report found elsewhere; zero if there is none.
    - `num_modes`: how many modes the family has.
    - `num_evaluations`: how many gradients of the log density the method took; `None`
        where it does not count them.
    """

    trustworthy: bool
    problems: tuple[str, ...]
    advice: str
    result: str
    corrected: bool
    elbo: Estimate | None
    log_evidence: Estimate
    khat: float
    effective: float
    num_draws: int
    quantities: tuple[Quantity, ...]
    score_discrepancy: float | None
    worst_score_discrepancy: float | None
    acceptance: float | None
    kernel_stein_discrepancy: KernelSteinDiscrepancy | None
    num_agreeing: int | None
    num_apart: int | None
    other_share: float
    num_modes: int
    num_evaluations: int | None

    @property
    def gap(self) -> float | None:
        """How far the ELBO is below the log evidence, in nats."""
        if self.elbo is None:
            return None
        return float(self.log_evidence.mean) - float(self.elbo.mean)

    def __repr__(self) -> str:
        return as_text(self)


@eqx.filter_jit
def _discrepancies(family: AbstractFamily, target: Target, x: Any) -> Any:
    """`E (root' (score p - score q))^2` of each coordinate where the family has unit
    covariance."""
    coordinates = own_coordinates(family, x)

    def gap(x: Any) -> Any:
        between = jax.grad(target.log_density)(x) - jax.grad(family.log_prob)(x)
        return coordinates.score(between)

    # One after the other: as much memory as one gradient takes.
    gaps = jax.lax.map(gap, x[:_SCORE_DRAWS], batch_size=16)
    return jnp.mean(gaps**2, axis=0)


def _history(fit: Fit) -> AutoState | None:
    state = fit.state
    state = state.before if isinstance(state, AutoNextState) else state
    return state if isinstance(state, AutoState) else None


def report(
    fit: Fit, *, key: Key, num_draws: int = NUM_DRAWS, num_starts: int = 8
) -> Report:
    r"""Say how far a fit can be trusted, and why.

    It draws from the family with heavier tails and weighs the draws by the target. The
    verdict is about means and standard deviations of all named parameters. `trustworthy`
    asks that

    - the weighted draws are worth more than a tenth of their number, with 100 to 250
      coordinates and more of these up to a quarter; or else, from 50 coordinates on, that
      Hamiltonian trajectories from plain draws are accepted and change no mean by 0.2
      standard deviations, and no standard deviation by 25 %, and that the score
      discrepancy of no coordinate is above 0.5. (In hundreds of dimensions a family may
      be close in every parameter, and its weights few.)
    - for every parameter the Pareto $\hat{k}$ of its contributions $w (x - m)^2$ is below
      0.8, and the standard errors of mean and standard deviation below 15 %;
    - where draws are not corrected, as after ADVI, the family's own means are within 0.2
      standard deviations and its standard deviations within 25 % of the weighted ones;
    - not fewer than two starts came to rest at the answer if any did elsewhere;
    - no start of the report came to rest at another mode that holds more than 1 % of the
        mass. (It starts a search where the method had fewer than four starts.)

    Particles have no density. There the weighted draws are those of a Student t with
    their moments, so that what is far from a Gaussian is not trusted, and the kernel
    Stein discrepancy must not be larger than that of independent draws (p < 0.002).

    The error rates of this rule, on posteriors with reference draws, are in
    `benchmarks/README.md`. Weights are blind to a mode in which no draw lies: there the
    starts are all that is known.

    **Arguments:**

    - `fit`: a [`vijax.Fit`][].
    - `key`: randomness. Keyword only.
    - `num_draws`: how many draws are weighed: four times as many where the $\hat{k}$ of
        some parameter is above 0.6, since it is known to a tenth only. Keyword only.
    - `num_starts`: from how many points modes are searched for, where the method looked
        from fewer than four and there are not more than 1,000 coordinates; 0 for none.
        Keyword only.

    **Returns:**

    A [`vijax.Report`][], which prints as a verdict.

    **Raises:** `ValueError` for a family without a density other than particles, for a
    single particle, or if no draw has a finite log density.

    **Reference:** Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work?*,
    [arXiv:1802.02538](https://arxiv.org/abs/1802.02538); Vehtari, Simpson, Gelman, Yao
    and Gabry (2024), *Pareto smoothed importance sampling*,
    [arXiv:1507.02646](https://arxiv.org/abs/1507.02646), section 3 on $\hat{k}$ of a
    quantity.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, key=jax.random.key(0))
        report = vi.report(fit, key=jax.random.key(1))
        report.trustworthy, report.khat
        ```
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"`fit` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    num_draws, key = as_whole("num_draws", num_draws, 100), as_key(key)
    num_starts = as_whole("num_starts", num_starts, 0)
    family, target = fit.family, fit.target
    proposal_key, plain_key = split_key(key)
    ksd = None
    if family.has_density:
        smooth, plain = family, draw(family, target, num_draws, key=plain_key)
    else:
        smooth, plain = check_particles(family), each_particle(family, target)
        ksd = kernel_stein_discrepancy(plain.x, target, key=key_for(key, _SIGNING))
    proposal = fit.proposal
    corrected = proposal is not None
    proposal = heavy_tailed(smooth) if proposal is None else proposal
    diagnosis = diagnose(proposed(proposal, target, num_draws, proposal_key))
    if diagnosis.worst_khat > _UNSURE and not diagnosis.has_few:
        # A k-hat is known to a tenth only, and of many one is large by chance.
        num_draws *= _SECOND_LOOK
        diagnosis = diagnose(proposed(proposal, target, num_draws, proposal_key))
    if not corrected:
        quantities = with_own_moments(diagnosis.quantities, plain)
        diagnosis = dataclasses.replace(diagnosis, quantities=quantities)
    score_gaps = None
    if family.has_density:
        score_gaps = np.asarray(_discrepancies(family, target, plain.x))
        if diagnosis.has_few:
            moving_key = key_for(key, _MOVING)
            worst = float(np.max(score_gaps))
            settling = settled(diagnosis, family, plain, worst, moving_key)
            diagnosis = diagnosis if settling is None else settling
    state = _history(fit)
    agreeing, others = None, None
    if state is not None and state.tried.size >= _ENOUGH_STARTS:
        near, apart = agreement(state)
        agreeing = int(near), int(apart)
    elif num_starts > 0 and target.dim <= _MOST_DIM:
        others = other_modes(
            target,
            plain.x,
            diagnosis.log_evidence,
            key=key_for(key, _STARTING),
            num_starts=num_starts,
        )
    problems = problems_of(
        diagnosis,
        failed=bool(fit.result == RESULTS.nonfinite),
        agreeing=agreeing,
        num_left=getattr(fit.problem.method, "num_left", 0),
        other_share=0.0 if others is None else others.share,
        pvalue=None if ksd is None else float(ksd.pvalue),
    )
    if others is not None:
        agreeing = others.num_near, others.num_apart
    components = getattr(family, "logits", None)
    return Report(
        trustworthy=not problems,
        problems=tuple(problems),
        advice=ADVICE if problems else "",
        result=name_of(fit.result),
        corrected=corrected,
        elbo=elbo(plain) if family.has_density else None,
        log_evidence=_estimate(plain.log_p.dtype, diagnosis),
        khat=diagnosis.khat,
        effective=diagnosis.effective,
        num_draws=diagnosis.num_draws,
        quantities=tuple(
            sorted(diagnosis.quantities, key=lambda q: q.badness, reverse=True)
        ),
        score_discrepancy=None if score_gaps is None else float(np.mean(score_gaps)),
        worst_score_discrepancy=None if score_gaps is None else float(np.max(score_gaps)),
        acceptance=diagnosis.acceptance,
        kernel_stein_discrepancy=ksd,
        num_agreeing=None if agreeing is None else agreeing[0],
        num_apart=None if agreeing is None else agreeing[1],
        other_share=0.0 if others is None else others.share,
        num_modes=1 if components is None else components.size,
        num_evaluations=_evaluations(fit),
    )


def _estimate(dtype: np.dtype, diagnosis: Diagnosis) -> Estimate:
    numbers = diagnosis.log_evidence, diagnosis.log_evidence_stderr
    return Estimate(*jax.device_put(tuple(dtype.type(number) for number in numbers)))


def _evaluations(fit: Fit) -> int | None:
    """Gradients of all stages, and the weighed draws that chose between these."""
    method, state = fit.problem.method, _history(fit)
    if state is None:
        counted = getattr(fit.state, "num_evaluations", None)
        return None if counted is None else int(counted)
    made = int(state.num_evaluations)
    if isinstance(method, AutoNext):
        if method.step_evaluations is None:
            return None
        num_steps = int(fit.num_steps)
        judged = 1 + (num_steps > (method.num_steps or num_steps))
        made += method.step_evaluations * num_steps + judged * NUM_DRAWS
    return made + NUM_DRAWS
