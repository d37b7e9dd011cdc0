from importlib.metadata import version as _version

from ._diagnostic.base import Estimate as Estimate
from ._diagnostic.elbo import elbo as elbo
from ._diagnostic.expectation import expectation as expectation
from ._diagnostic.kernel_stein_discrepancy import (
    kernel_stein_discrepancy as kernel_stein_discrepancy,
    KernelSteinDiscrepancy as KernelSteinDiscrepancy,
)
from ._diagnostic.loo import loo as loo
from ._diagnostic.pareto_khat import (
    pareto_khat as pareto_khat,
    ParetoKhat as ParetoKhat,
)
from ._draws.draw import draw as draw
from ._draws.draws import Draws as Draws
from ._draws.to_particles import to_particles as to_particles
from ._export.arviz import to_arviz as to_arviz
from ._export.nuts import to_nuts as to_nuts
from ._export.nuts_start import NUTSStart as NUTSStart
from ._export.plots.densities import plot_densities as plot_densities
from ._export.plots.loss import plot_loss as plot_loss
from ._export.plots.trackers import plot_trackers as plot_trackers
from ._family.affine import Affine as Affine
from ._family.base import AbstractFamily as AbstractFamily
from ._family.coupling import Coupling as Coupling
from ._family.full_rank import FullRank as FullRank
from ._family.mean_field import MeanField as MeanField
from ._family.mixture import Mixture as Mixture
from ._family.nested_gaussian import NestedGaussian as NestedGaussian
from ._family.particles import Particles as Particles
from ._family.point_estimates import PointEstimates as PointEstimates
from ._family.student_t import StudentT as StudentT
from ._frontend.host import from_host as from_host
from ._frontend.lazy_numpyro import attach_submodules as _attach_submodules
from ._frontend.likelihood import from_likelihood as from_likelihood
from ._frontend.log_density import from_log_density as from_log_density
from ._frontend.numpyro import from_numpyro as from_numpyro
from ._frontend.pymc import from_pymc as from_pymc
from ._kernel.base import AbstractKernel as AbstractKernel
from ._kernel.imq import IMQ as IMQ
from ._kernel.linear import LinearKernel as LinearKernel
from ._kernel.mixture import MixtureKernel as MixtureKernel
from ._kernel.rbf import RBF as RBF
from ._loop.base import AbstractStop as AbstractStop
from ._loop.loss_convergence import LossConvergence as LossConvergence
from ._loop.moment_convergence import MomentConvergence as MomentConvergence
from ._loop.parameter_convergence import ParameterConvergence as ParameterConvergence
from ._method.auto import Auto as Auto
from ._method.averaging import Averaging as Averaging
from ._method.bam import BaM as BaM
from ._method.base import (
    AbstractAskTell as AbstractAskTell,
    AbstractMethod as AbstractMethod,
    AbstractOnHost as AbstractOnHost,
)
from ._method.birth_death import BirthDeath as BirthDeath
from ._method.dadvi import DADVI as DADVI
from ._method.descent import Descent as Descent
from ._method.gsm import GSM as GSM
from ._method.laplace import Laplace as Laplace
from ._method.natural_gradient import NaturalGradient as NaturalGradient
from ._method.nested import Nested as Nested
from ._method.pathfinder import Pathfinder as Pathfinder
from ._method.svgd import SVGD as SVGD
from ._method.whitened import Whitened as Whitened
from ._objective.base import AbstractObjective as AbstractObjective
from ._objective.elbo import ELBO as ELBO
from ._objective.fixed_draws import FixedDraws as FixedDraws
from ._objective.stein_force import SteinForce as SteinForce
from ._objective.stick_the_landing import StickTheLanding as StickTheLanding
from ._report.linear_response import (
    linear_response as linear_response,
    LinearResponse as LinearResponse,
)
from ._report.report import Report as Report, report as report
from ._report.vsbc import VSBC as VSBC, vsbc as vsbc
from ._run.checkpoint import save as save
from ._run.fit import fit as fit
from ._run.fit_result import Fit as Fit
from ._run.load import load as load
from ._run.results import FitError as FitError, RESULTS as RESULTS
from ._target.minibatch import Minibatch as Minibatch
from ._target.model import AbstractModel as AbstractModel
from ._target.param import Param as Param
from ._target.target import Target as Target


_attach_submodules()

__version__ = _version("vijax")
