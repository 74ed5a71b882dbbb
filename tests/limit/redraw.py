"""Covariances with one token's initial angle, by drawing that token again and running both prompts."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic import Solve, simulate
from jaxkinetic.limit import Resolution, solve_correlations
from jaxkinetic.limit.mean_field_equation import CharacteristicMeanField

STEPS = Solve(solver=diffrax.Tsit5(), step=0.1)
N_OBSERVABLES = 10


def redraw(model, law, n_tokens, source, n_modes, n_prompts, key, time=1.0, batch=64):
    """N Cov(e^{-i n theta_N(t)}, e^{i theta_i(0)}) for i = ceil(N sigma_0): means and standard errors.

    For an independent copy theta_i' and the prompt run with it, Cov(X, phi) = 1/2 E[(X - X')(phi - phi')]. The
    limit's own first-order prediction of X - X' is subtracted as a control variate; its mean is found by
    quadrature over the three initial angles that it depends on, so that the estimate owes nothing to it.
    """
    i = int(np.ceil(n_tokens * source - 1e-9)) - 1
    n = jnp.arange(1, n_modes + 1)
    predict = first_order(model, law, (i + 1) / n_tokens, n, time)

    def last(theta):
        return jnp.exp(-1j * n * simulate(model, theta, [time], STEPS).angles[0, -1])

    def product(difference, y, other):
        return difference / 2 * (jnp.exp(1j * y) - jnp.exp(1j * other))

    def one(p):
        first, second = jax.random.split(jax.random.fold_in(key, p))
        theta = law.sample(first, n_tokens)
        other = law.sample(second, n_tokens)[i]
        ends = jax.vmap(last)(jnp.stack([theta, theta.at[i].set(other)]))
        plain = product(n_tokens * (ends[0] - ends[1]), theta[i], other)
        predicted = predict(theta[-1], theta[i]) - predict(theta[-1], other)
        return plain, product(predicted, theta[i], other)

    plain, control = jax.jit(lambda p: jax.lax.map(one, p, batch_size=batch))(jnp.arange(n_prompts))
    readers, readers_weights = quadrature(law, 1.0)
    tokens, weights = quadrature(law, (i + 1) / n_tokens)
    table = jax.vmap(jax.vmap(predict, (None, 0)), (0, None))(readers, tokens)
    mean_prediction = jnp.einsum("r,ryn->yn", readers_weights, table)
    covariance = jnp.einsum(
        "y,yn->n", weights * (jnp.exp(1j * tokens) - weights @ jnp.exp(1j * tokens)), mean_prediction
    )
    values = plain - control + covariance[None, :]
    error = jnp.sqrt((jnp.var(values.real, axis=0) + jnp.var(values.imag, axis=0)) / n_prompts)
    gain = jnp.var(plain, axis=0) / jnp.var(values, axis=0)
    return np.asarray(jnp.mean(values, axis=0)), np.asarray(error), np.asarray(gain)


def first_order(model, law, source, n, time):
    """N times what e^{-i n theta_N} changes, to first order, when the source starts at y: (x, y) -> modes.

    X is the characteristic of the last token from x. Its displacement by a source at y is the correlation with a
    point mass at y over the density there, as a Fourier series in y.
    """
    size = Resolution(33, source_nodes=33, modes=32, tolerance=1e-6)
    m = tuple(range(1, N_OBSERVABLES + 1))
    found = solve_correlations(
        model, law, [time], source, observable_mode=m, method="characteristics", resolution=size
    )
    flow, equation = found.field.flow, found.equations
    assert isinstance(flow, CharacteristicMeanField)
    at, _ = equation.at(jnp.ones(()))
    zeta = jnp.einsum("sj,rsjl->rl", at, found.states["cross"][0])
    xi = model.positions.graphon(jnp.ones(()), jnp.asarray(source)) * (zeta[0::2] + 1j * zeta[1::2])
    angles = found.field.characteristics(time, 1.0)
    labels = flow.labels
    if flow.is_atomic:
        # e^{i m y} on M atoms: indicators of the atoms from m = 1..M-1.
        xi = xi[: labels.size - 1] / labels.size
        order = jnp.arange(1, labels.size)
        probabilities = law.atom_probabilities(jnp.asarray(source))

        def pick_atom(table, x):
            return table[..., jnp.round(x * labels.size / (2 * jnp.pi)).astype(int) % labels.size]

        def probability(y):
            return pick_atom(probabilities, y)

        pick, density = pick_atom, probability
    else:
        xi, order = 2 * xi, jnp.arange(1, N_OBSERVABLES + 1)

        def interpolate(table, x):
            spectrum = jnp.fft.fft(table, axis=-1) / labels.size
            frequency = jnp.fft.fftfreq(labels.size, 1 / labels.size)
            return spectrum @ jnp.exp(1j * frequency * x)

        def density_at(y):
            return law.density(jnp.asarray(source), y[None])[0]

        pick, density = interpolate, density_at

    def predict(x, y):
        end = x + jnp.real(pick(angles - labels, x))
        response = jnp.real(jnp.exp(-1j * order * y) @ pick(xi, x)) / density(y)
        return -1j * n * jnp.exp(-1j * n * end) * response

    return predict


def quadrature(law, sigma):
    """Angles and weights that integrate against the law at sigma."""
    if law.atoms is not None:
        return jnp.asarray(law.atoms), law.atom_probabilities(jnp.asarray(sigma))
    theta = 2 * jnp.pi * jnp.arange(64) / 64
    return theta, law.density(jnp.asarray(sigma), theta) / 64
