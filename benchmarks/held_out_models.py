"""Models of many kinds, outside posteriordb, as NumPyro models.

`MODELS` maps a name to a function of a `numpy.random.Generator` that simulates data and
returns the model and its arguments.
"""

from collections.abc import Callable
from typing import Any

import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import deterministic, factor, plate
from numpyro.distributions import constraints


Model = tuple[Callable, tuple[np.ndarray, ...]]
MODELS: dict[str, Callable[[np.random.Generator], Model]] = {}


def added(make: Callable[[np.random.Generator], Model]) -> Callable:
    MODELS[make.__name__.replace("_", " ")] = make
    return make


def sample(name: str, law: Any, **rest: Any) -> Any:
    return numpyro.sample(name, law, **rest)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def normal(name: str, scale: float, *shape: int) -> Any:
    return sample(name, dist.Normal(0.0, scale).expand(shape).to_event(len(shape)))


@added
def dugong_growth(rng):
    age = [1, 1.5, 1.5, 1.5, 2.5, 4, 5, 5, 7, 8, 8.5, 9, 9.5, 9.5, 10, 12, 12, 13, 13]
    age = np.array([*age, 14.5, 15.5, 15.5, 16.5, 17, 22.5, 29, 31.5])
    y = 2.7 - 0.97 * 0.87**age + 0.09 * rng.normal(size=age.size)

    def model(age, y):
        alpha = sample("alpha", dist.Normal(0.0, 100.0))
        beta = sample("beta", dist.Normal(0.0, 100.0))
        rate = sample("rate", dist.Uniform(0.5, 1.0))
        sigma = sample("sigma", dist.HalfNormal(10.0))
        sample("y", dist.Normal(alpha - beta * rate**age, sigma), obs=y)

    return model, (age, y)


@added
def seeds_random_effects_logistic(rng):
    x = np.stack([np.ones(21), np.arange(21) % 2, np.arange(21) // 11], 1).astype(float)
    total = rng.integers(4, 80, 21)
    chance = sigmoid(x @ np.array([-0.5, 0.1, 1.0]) + 0.3 * rng.normal(size=21))

    def model(x, total, y):
        beta, scale = normal("beta", 5.0, 3), sample("scale", dist.HalfNormal(1.0))
        logits = x @ beta + scale * normal("z", 1.0, 21)
        sample("y", dist.Binomial(total, logits=logits), obs=y)

    return model, (x, total, rng.binomial(total, chance))


@added
def rats_centered_growth(rng):
    time = np.array([-14.0, -7.0, 0.0, 7.0, 14.0])
    slopes = np.stack([242 + 14 * rng.normal(size=30), 6.2 + 0.5 * rng.normal(size=30)])
    y = slopes[0][:, None] + slopes[1][:, None] * time + 6 * rng.normal(size=(30, 5))

    def model(time, y):
        center = sample("center", dist.Normal(jnp.array([240.0, 6.0]), 50.0).to_event(1))
        between = sample("between", dist.HalfNormal(jnp.array([30.0, 2.0])).to_event(1))
        sigma = sample("sigma", dist.HalfNormal(20.0))
        with plate("rats", 30):
            line = sample("line", dist.Normal(center, between).to_event(1))
        mean = line[:, :1] + line[:, 1:] * time
        sample("y", dist.Normal(mean, sigma).to_event(2), obs=y)

    return model, (time, y)


@added
def radon_varying_intercepts(rng):
    county, floor = rng.integers(0, 40, 300), rng.integers(0, 2, 300).astype(float)
    y = 1.3 - 0.6 * floor + 0.3 * rng.normal(size=40)[county] + 0.7 * rng.normal(size=300)

    def model(county, floor, y):
        mean, slope = sample("mean", dist.Normal(0.0, 5.0)), normal("slope", 5.0)
        between = sample("between", dist.HalfNormal(2.0))
        sigma = sample("sigma", dist.HalfNormal(2.0))
        z = normal("z", 1.0, 40)
        intercept: Any = deterministic("intercept", mean + between * z)
        sample("y", dist.Normal(intercept[county] + slope * floor, sigma), obs=y)

    return model, (county, floor, y)


@added
def pilots_crossed_and_centered(rng):
    group, scenario = np.arange(40) % 5, np.arange(40) // 5
    effects = 0.1 * rng.normal(size=5)[group] + 0.3 * rng.normal(size=8)[scenario]
    y = 0.4 + effects + 0.2 * rng.normal(size=40)

    def model(group, scenario, y):
        mean = sample("mean", dist.Normal(0.0, 1.0))
        scales = sample("scales", dist.HalfNormal(1.0).expand([3]).to_event(1))
        with plate("groups", 5):
            a = sample("a", dist.Normal(0.0, scales[0]))
        with plate("scenarios", 8):
            b = sample("b", dist.Normal(0.0, scales[1]))
        sample("y", dist.Normal(mean + a[group] + b[scenario], scales[2]), obs=y)

    return model, (group, scenario, y)


@added
def item_response_2pl(rng):
    gap = rng.normal(size=(100, 1)) - rng.normal(size=20)
    chance = sigmoid(rng.lognormal(0, 0.4, 20) * gap)

    def model(y):
        ability = normal("ability", 1.0, 100)
        difficulty = normal("difficulty", 2.0, 20)
        with plate("items", 20):
            slope = sample("slope", dist.LogNormal(0.0, 0.5))
        logits = slope * (ability[:, None] - difficulty)
        sample("y", dist.Bernoulli(logits=logits).to_event(2), obs=y)

    return model, ((rng.random((100, 20)) < chance).astype(float),)


@added
def stochastic_volatility(rng):
    h = np.zeros(100)
    for t in range(1, 100):
        h[t] = 0.95 * h[t - 1] + 0.25 * rng.normal()

    def model(y):
        mean, sigma = normal("mean", 3.0), sample("sigma", dist.HalfNormal(1.0))
        phi = sample("phi", dist.TransformedDistribution(
            dist.Beta(20.0, 1.5), dist.transforms.AffineTransform(-1.0, 2.0)
        ))  # fmt: skip
        z = normal("z", 1.0, 100)
        first = sigma * z[0] / jnp.sqrt(1 - phi**2)

        def step(h, z):
            h = phi * h + sigma * z
            return h, h

        _, rest = lax.scan(step, first, z[1:])
        h = mean + jnp.concatenate([first[None], rest])
        sample("y", dist.Normal(0.0, jnp.exp(h / 2)).to_event(1), obs=y)

    return model, (np.exp((h - 1) / 2) * rng.normal(size=100),)


@added
def horseshoe_regression(rng):
    x = rng.normal(size=(100, 20))
    y = x[:, 0] * 2 - x[:, 1] + rng.normal(size=100)

    def model(x, y):
        scale = sample("scale", dist.HalfCauchy(0.1))
        sigma = sample("sigma", dist.HalfNormal(2.0))
        local = sample("local", dist.HalfCauchy(1.0).expand([20]).to_event(1))
        beta = deterministic("beta", scale * local * normal("z", 1.0, 20))
        sample("y", dist.Normal(x @ beta, sigma), obs=y)

    return model, (x, y)


@added
def robust_regression(rng):
    x = np.stack([np.ones(80), rng.normal(size=80)], 1)
    y = x @ np.array([1.0, 2.0]) + 0.5 * rng.standard_t(3, 80)

    def model(x, y):
        beta, sigma = normal("beta", 10.0, 2), sample("sigma", dist.HalfNormal(5.0))
        nu = sample("nu", dist.Gamma(2.0, 0.1))
        sample("y", dist.StudentT(nu, x @ beta, sigma), obs=y)

    return model, (x, y)


@added
def ordered_logistic(rng):
    x = rng.normal(size=(200, 2))
    latent = x @ np.array([1.0, -0.5]) + rng.logistic(size=200)

    def model(x, y):
        beta = normal("beta", 2.0, 2)
        cuts = sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
        factor("prior", dist.Normal(0.0, 3.0).log_prob(cuts).sum())
        sample("y", dist.OrderedLogistic(x @ beta, cuts), obs=y)

    return model, (x, np.digitize(latent, [-1.0, 0.5, 2.0]))


@added
def varying_slopes_with_correlations(rng):
    group, x = np.arange(150) % 10, rng.normal(size=150)
    lines = rng.multivariate_normal([1, 2], [[0.5, 0.3], [0.3, 0.4]], 10)
    y = lines[group, 0] + lines[group, 1] * x + 0.5 * rng.normal(size=150)

    def model(group, x, y):
        center, sigma = normal("center", 5.0, 2), sample("sigma", dist.HalfNormal(2.0))
        scales = sample("scales", dist.HalfNormal(2.0).expand([2]).to_event(1))
        root = sample("root", dist.LKJCholesky(2, 2.0))
        z = normal("z", 1.0, 10, 2)
        lines = center + z @ (scales[:, None] * root).T
        mean = lines[group, 0] + lines[group, 1] * x
        sample("y", dist.Normal(mean, sigma), obs=y)

    return model, (group, x, y)


@added
def negative_binomial_regression(rng):
    x = np.stack([np.ones(150), rng.normal(size=150)], 1)
    rate = np.exp(x @ np.array([1.0, 0.5])) * rng.gamma(2.0, 0.5, 150)

    def model(x, y):
        beta, size = normal("beta", 5.0, 2), sample("size", dist.Gamma(1.0, 0.1))
        sample("y", dist.NegativeBinomial2(jnp.exp(x @ beta), size), obs=y)

    return model, (x, rng.poisson(rate))


@added
def zero_inflated_counts(rng):
    y = rng.poisson(2.0, 60) * (rng.random(60) > 0.3)

    def model(y):
        gate = sample("gate", dist.Beta(1.0, 1.0))
        rate = sample("rate", dist.Gamma(1.0, 0.1))
        sample("y", dist.ZeroInflatedPoisson(gate, rate), obs=y)

    return model, (y,)


@added
def gaussian_process_of_counts(rng):
    x = np.linspace(-10, 10, 11)
    y = rng.poisson(np.exp(3 + np.sin(x / 2)))

    def model(x, y):
        rho = sample("rho", dist.Gamma(25.0, 4.0))
        alpha = sample("alpha", dist.HalfNormal(2.0))
        gap = (x[:, None] - x[None, :]) / rho
        cov = alpha**2 * jnp.exp(-0.5 * gap**2) + 1e-6 * jnp.eye(11)
        f = jnp.linalg.cholesky(cov) @ normal("z", 1.0, 11)
        sample("y", dist.Poisson(jnp.exp(f)), obs=y)

    return model, (x, y)


@added
def moving_average_1_1(rng):
    y, e = np.zeros(200), 0.5 * rng.normal(size=200)
    for t in range(1, 200):
        y[t] = 0.5 + 0.6 * y[t - 1] + e[t] + 0.3 * e[t - 1]

    def model(y):
        mu, phi = sample("mu", dist.Normal(0.0, 10.0)), normal("phi", 2.0)
        theta = normal("theta", 2.0)
        sigma = sample("sigma", dist.HalfCauchy(2.5))

        def step(error, pair):
            error = pair[1] - mu - phi * pair[0] - theta * error
            return error, error

        first = y[0] - mu - phi * mu
        _, rest = lax.scan(step, first, (y[:-1], y[1:]))
        errors = jnp.concatenate([first[None], rest])
        factor("y", dist.Normal(0.0, sigma).log_prob(errors).sum())

    return model, (y,)


@added
def hidden_markov_drive(rng):
    state, y = 0, np.zeros(200)
    for t in range(200):
        state = state if rng.random() < 0.9 else 1 - state
        y[t] = rng.normal([0.0, 3.0][state], 1.0)

    def model(y):
        stay = sample("stay", dist.Beta(8.0, 2.0).expand([2]).to_event(1))
        mean = sample("mean", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
        factor("prior", dist.Normal(jnp.array([0.0, 3.0]), 1.0).log_prob(mean).sum())
        log_move = jnp.log(jnp.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]]))
        emit = dist.Normal(mean, 1.0).log_prob(y[:, None])

        def step(alpha, emit):
            moved = alpha[:, None] + log_move
            return jnp.logaddexp(moved[0], moved[1]) + emit, None

        alpha, _ = lax.scan(step, emit[0], emit[1:])
        factor("y", jnp.logaddexp(alpha[0], alpha[1]))

    return model, (y,)


def solved(slope: Callable, first: Any, times: np.ndarray, steps: int) -> Any:
    """Fourth-order Runge-Kutta: the states at the times, the first of which is zero."""

    def between(y, h):
        def one(_, y):
            a = slope(y)
            b = slope(y + 0.5 * h * a)
            c = slope(y + 0.5 * h * b)
            return y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c))

        y = lax.fori_loop(0, steps, one, y)
        return y, y

    return lax.scan(between, first, jnp.asarray(np.diff(times) / steps, first.dtype))[1]


@added
def michaelis_menten_elimination(rng):
    times = np.linspace(0, 15, 21)
    truth = solved(lambda c: -0.8 * c / (3 + c), jnp.array(10.0), times, 10)
    y = np.exp(np.log(np.asarray(truth)) + 0.1 * rng.normal(size=20))

    def model(y):
        km = sample("km", dist.HalfCauchy(1.0))
        vm = sample("vm", dist.HalfCauchy(1.0))
        sigma = sample("sigma", dist.HalfNormal(1.0))
        c = solved(lambda c: -vm * c / (km + c), 10.0 + 0 * y[0], times, 10)
        sample("y", dist.LogNormal(jnp.log(jnp.maximum(c, 1e-6)), sigma), obs=y)

    return model, (y,)


@added
def epidemic(rng):
    times, population = np.arange(15.0), 763.0

    def infected(beta, gamma, dtype):
        def slope(s):
            new = beta * s[0] * s[1] / population
            return jnp.stack([-new, new - gamma * s[1]])

        return solved(slope, jnp.array([762.0, 1.0], dtype), times, 10)[:, 1]

    y = rng.negative_binomial(10, 10 / (10 + np.asarray(infected(1.7, 0.5, float))))

    def model(y):
        beta = sample("beta", dist.TruncatedNormal(2.0, 1.0, low=0.0))
        gamma = sample("gamma", dist.TruncatedNormal(0.4, 0.5, low=0.0))
        inverse = sample("inverse", dist.Exponential(5.0))
        mean = jnp.maximum(infected(beta, gamma, jnp.result_type(beta)), 1e-3)
        sample("y", dist.NegativeBinomial2(mean, 1 / inverse), obs=y)

    return model, (y,)


@added
def simplex_of_shares(rng):
    y = rng.multinomial(60, [0.55, 0.3, 0.1, 0.04, 0.01])

    def model(y):
        share = sample("share", dist.Dirichlet(0.8 * jnp.ones(5)))
        factor("y", jnp.sum(y * jnp.log(share)))

    return model, (y.astype(float),)


@added
def censored_survival(rng):
    x, time = rng.normal(size=80), rng.weibull(1.5, 80)
    time = time * np.exp(0.5 * x)
    seen = time < 1.5

    def model(x, time, seen):
        shape, beta = sample("shape", dist.Gamma(2.0, 1.0)), normal("beta", 5.0, 2)
        scale = jnp.exp(beta[0] + beta[1] * x)
        power = (time / scale) ** shape
        hazard = jnp.log(shape / scale) + (shape - 1) * jnp.log(time / scale)
        factor("y", jnp.sum(jnp.where(seen, hazard, 0.0) - power))

    return model, (x, np.minimum(time, 1.5), seen)


@added
def few_events(rng):
    def model(y, exposure):
        rate = sample("rate", dist.Gamma(0.5, 0.01).expand([3]).to_event(1))
        sample("y", dist.Poisson(rate * exposure), obs=y)

    return model, (np.array([0, 1, 3]), np.array([10.0, 10.0, 50.0]))


@added
def separated_logistic_regression(rng):
    x = np.concatenate([rng.normal(-2, 0.5, 15), rng.normal(2, 0.5, 15)])

    def model(x, y):
        beta = sample("beta", dist.StudentT(7.0, 0.0, 2.5).expand([2]).to_event(1))
        sample("y", dist.Bernoulli(logits=beta[0] + beta[1] * x), obs=y)

    return model, (x, (x > 0).astype(float))


@added
def random_walk_of_chances(rng):
    chance = sigmoid(np.cumsum(0.2 * rng.normal(size=60)))

    def model(y):
        scale, first = sample("scale", dist.HalfNormal(0.5)), normal("first", 2.0)
        logits = first + scale * jnp.cumsum(normal("z", 1.0, 60))
        sample("y", dist.Binomial(4, logits=logits).to_event(1), obs=y)

    return model, (rng.binomial(4, chance),)


@added
def seven_rows_flat_priors(rng):
    y = rng.normal(3.0, 2.0, 7)

    def model(y):
        flat = dist.ImproperUniform
        mu = sample("mu", flat(constraints.real, (), ()))
        sigma = sample("sigma", flat(constraints.positive, (), ()))
        sample("y", dist.Normal(mu, sigma), obs=y)

    return model, (y,)


@added
def accelerations_with_changing_noise(rng):
    x = np.sort(rng.uniform(0, 1, 100))
    y = np.sin(8 * x) * np.exp(x) + (0.1 + x) * 0.4 * rng.normal(size=100)
    index = np.arange(1, 16)
    basis = np.sqrt(2 / 1.5) * np.sin(np.pi * index * (x[:, None] - 0.5 + 0.75) / 1.5)

    def smooth(name, basis):
        scale = sample(f"{name}_scale", dist.HalfNormal(2.0))
        length = sample(f"{name}_length", dist.LogNormal(-1.0, 0.5))
        decay = jnp.exp(-0.25 * (length * np.pi * index / 1.5) ** 2)
        root = scale * jnp.sqrt(length * np.sqrt(2 * np.pi)) * decay
        return basis @ (root * normal(f"{name}_z", 1.0, 15))

    def model(basis, y):
        level = sample("level", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        mean = level[0] + smooth("mean", basis)
        log_sd = level[1] + smooth("log_sd", basis)
        sample("y", dist.Normal(mean, jnp.exp(log_sd)), obs=y)

    return model, (basis, y)
