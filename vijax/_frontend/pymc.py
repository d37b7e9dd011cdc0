from typing import Any

from .._target.target import Target
from .pymc_graph import PyMCGraph
from .pymc_model import PyMCModel
from .pymc_words import check_batches, check_on_host


def _check_model(model: Any) -> None:
    try:
        import pymc
    except ImportError as e:
        raise ImportError(
            '`vi.from_pymc` needs PyMC: `pip install "vijax[pymc]"`.'
        ) from e
    if not isinstance(model, pymc.Model):
        raise ValueError(
            f"`model` must be a `pm.Model`, but it is a {type(model).__name__}. Pass "
            "what `with pm.Model() as model:` names."
        )
    if not model.free_RVs:
        raise ValueError("The PyMC model has no free variables: nothing is to be found.")
    for value in model.discrete_value_vars:
        name = model.values_to_rvs[value].name
        raise ValueError(
            f"The variable {name!r} is discrete, but only continuous ones have a density "
            "to follow. Sum it out: write a mixture, e.g. `pm.Mixture` or "
            "`pm.NormalMixture`, or use `marginalize` of the package `pymc-extras`."
        )


def from_pymc(model: Any) -> Target:
    """A target from a PyMC model.

    The log density is PyMC's own, `model.logp()`, computed in JAX. Potentials, transforms
    and imputed data are in it. Point by point:

    - *Data*: whatever is in `pm.Data` or observed (and any large constant) is data of the
      target: `target.with_data({"X": new})`. For the same shapes nothing compiles again.
      Other shapes need `pm.Data`. The model itself is never changed.
    - *Batches*: steps of a fit see what `pm.Minibatch` says, in shuffled epochs;
      everything else, such as draws and diagnostics, sees all the rows.
    - *Ops that JAX does not know*, such as a black box of one's own: PyTensor computes
      the log density and its gradient itself, on the host, one point after another. A
      warning names the variable. It needs a gradient, and all the rows at once.
    - *Predictions* are drawn by PyMC: free variables whose shape is another for new data
      come from their prior given the rest, all others from the draws.

    **Arguments:**

    - `model`: a `pm.Model`.

    **Returns:**

    A [`vijax.Target`][], whose parameters are the free variables and the deterministic
    ones, by their names. Its coordinates are PyMC's value variables in their order.

    **Raises:** `ValueError` if it is no model, if a free variable is discrete, if
    `pm.Minibatch` is used without `total_size`, if PyTensor can neither turn the log
    density into JAX nor differentiate it itself, or if data hold NaN. `ImportError`
    without PyMC.

    !!! Example

        ```python
        import numpy as np
        import pymc as pm
        import vijax as vi

        with pm.Model() as model:
            x = pm.Data("x", np.arange(5.0))
            slope = pm.Normal("slope", 0.0, 1.0)
            sigma = pm.HalfNormal("sigma", 1.0)
            pm.Normal("y", slope * x, sigma, observed=np.arange(5.0))

        target = vi.from_pymc(model)
        ```
    """
    _check_model(model)
    graph = PyMCGraph(model)
    check_batches(graph)
    out = PyMCModel(graph, graph.data.arrays)
    sizes = {name: size for name, (_, size) in graph.data.minibatches.items()}
    minibatch = out.minibatch(sizes, None) if sizes else None
    target = Target(out, graph.data.arrays, minibatch)
    check_on_host(out.program, in_batches=minibatch is not None)
    return target
