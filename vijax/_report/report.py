"""The report on a fit: evidence, then a verdict, then words."""

import dataclasses

from .._custom_types import Key
from .._diagnostic.base import Estimate
from .._diagnostic.kernel_stein_discrepancy import KernelSteinDiscrepancy
from .._draws.diagnosis import Quantity
from .._draws.psis import NUM_DRAWS
from .._misc import as_key, as_whole
from .._run.fit_result import Fit
from .._target.threads import one_thread
from .evidence import gather
from .text import as_text
from .verdict import judge


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
    - `estimates`: parameters that are point estimates, which all the rest is given.
    - `num_evaluations`: how many gradients of the log density the method took; `None`
        where it does not count them.
    - `globals`: of a nested answer the parameters given which the others are nearly
        Gaussian, as `Fit.globals`.
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
    estimates: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """How far the ELBO is below the log evidence, in nats."""
        if self.elbo is None:
            return None
        return float(self.log_evidence.mean) - float(self.elbo.mean)

    def __repr__(self) -> str:
        return as_text(self)


def report(
    fit: Fit, *, key: Key, num_draws: int = NUM_DRAWS, num_starts: int = 8
) -> Report:
    r"""Say how far a fit can be trusted, and why.

    It draws from the family with heavier tails and weighs the draws by the target. The
    verdict is about means and standard deviations of all named parameters. `trustworthy`
    asks that

    - where [`vijax.Fit.correction`][] is by importance, the weighted draws are worth more
      than a tenth of their number, with 100 to 250 coordinates and more of these up to a
      quarter. Where draws are chosen and moved by Hamiltonian trajectories, or are plain
      and their weights too few: that from 50 coordinates on the ends of trajectories have
      settled, differ from plain draws in no mean by 0.2 standard deviations and in no
      standard deviation by 25 %, and that the score discrepancy of no coordinate is above
      0.5. (In hundreds of dimensions a family may be close in every parameter, and its
      weights few.)
    - for every parameter the Pareto $\hat{k}$ of its contributions $w (x - m)^2$ is below
      0.8, and the standard errors of mean and standard deviation below 15 %;
    - the target is not the same with other signs of all parameters, one, two of them, or
      what has one label in them, where the family is on one side only (as of the loadings
      of a factor model);
    - where draws are not corrected, as after ADVI, the family's own means are within 0.2
      standard deviations and its standard deviations within 25 % of the weighted ones;
    - not fewer than two starts came to rest at the answer if any did elsewhere, and some
      did at all, unless there are globals given which the others have a maximum;
    - of the starts of the default not more than one in twenty led to a mode that no other
      start led to, and what it left out holds no more than 1 % of the mass;
    - no start of the report came to rest at another mode that holds more than 1 % of the
      mass. (It starts a search where the fit itself did not look all around.)
    - neighboring floating-point numbers are within a twentieth of each standard
      deviation.

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
    - `num_starts`: from how many points anywhere modes are searched for, with four times
        as many around the draws; 0 for none. Not where the fit itself has looked all
        around, as the default does outside of `jax.jit`, nor beyond 1,000 coordinates.
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
    with one_thread(fit.target):
        evidence = gather(fit, key, num_draws, num_starts)
    verdict = judge(evidence)
    diagnosis, scores = verdict.diagnosis, evidence.scores
    starts = evidence.own_starts or evidence.found_starts
    return Report(
        trustworthy=not verdict.problems,
        problems=verdict.problems,
        advice=verdict.advice,
        result=evidence.result,
        corrected=evidence.corrected,
        elbo=evidence.elbo,
        log_evidence=evidence.log_evidence,
        khat=diagnosis.khat,
        effective=diagnosis.effective,
        num_draws=diagnosis.num_draws,
        quantities=tuple(
            sorted(diagnosis.quantities, key=lambda q: q.badness, reverse=True)
        ),
        score_discrepancy=None if scores is None else scores.mean,
        worst_score_discrepancy=None if scores is None else scores.worst,
        acceptance=diagnosis.acceptance,
        kernel_stein_discrepancy=evidence.kernel_stein_discrepancy,
        num_agreeing=None if starts is None else starts.num_near,
        num_apart=None if starts is None else starts.num_apart,
        other_share=0.0 if starts is None else starts.other_share,
        num_modes=evidence.num_modes,
        num_evaluations=evidence.num_evaluations,
        estimates=evidence.estimates,
        globals=evidence.globals,
    )
