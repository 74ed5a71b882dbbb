# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From particles to the limit
#
# Prompts of N tokens with a law that varies with position approach the mean field (1.10), and their
# covariances, times N, the cross-correlation (1.18). Here both limits are solved, looked at, and compared with
# particles: Theorem 1.1 with its rates, and the weights behind them, (2.2) and (2.4).

# %%
import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic.limit import Resolution, solve_correlations, solve_mean_field

jax.config.update("jax_enable_x64", True)
# Okabe and Ito's colours, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#E69F00", "#009E73", "#000000"
model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))

# %% [markdown]
# ## The mean field of a smooth law
#
# $f_\circ(\sigma, \theta) = 1 + 0.6 \cos(\theta - 2 \sigma) + 0.2\, \sigma \sin 2 \theta$: the favoured angle turns
# with position. Attention draws angles together, the later tokens behind the earlier.

# %%
law = jk.DensityPrompts(lambda s: jnp.stack([0.3 * jnp.exp(-2j * s), -0.1j * s]))
times = [0.0, 0.5, 1.0, 1.5]
field = solve_mean_field(model, law, times)
theta = jnp.linspace(0, 2 * jnp.pi, 181)
sigma = jnp.linspace(0.005, 1, 120)

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), sharey=True, layout="constrained")
densities = [field.density(t, sigma, theta) for t in times]
for axis, t, density in zip(axes, times, densities, strict=True):
    picture = axis.pcolormesh(
        sigma, theta, density.T, vmin=0, vmax=float(densities[-1].max()), cmap="cividis", rasterized=True
    )
    axis.set(title=f"t = {t:g}", xlabel="position $\\sigma$")
axes[0].set_ylabel("angle $\\theta$ (radians)")
figure.colorbar(picture, ax=axes, label="density $f(t, \\sigma, \\theta)$ against $d\\theta / 2\\pi$")
plt.show()

# %% [markdown]
# ## Correlations with a source
#
# $\hat C(1, \sigma, n; \sigma_0)$ for $\varphi = e^{i\theta}$. All tokens after the source carry its memory; how
# much depends on the source, and for uniform prompts on nothing but (1.23).

# %%
sources = jnp.array([0.05, 0.3, 0.7])
size = Resolution(33, source_nodes=41, modes=64)
found = solve_correlations(model, law, [1.0], sources, resolution=size)
uniform = solve_correlations(model, jk.UniformPrompts(), [1.0], sources, resolution=size)
readers = jnp.linspace(0.06, 1, 200)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for i, colour in enumerate((BLUE, ORANGE, GREEN)):
    after = readers > sources[i]
    label = f"$\\sigma_0$ = {float(sources[i]):g}"
    axis.plot(readers[after], found.cross(1.0, readers)[i, after, 0].real, color=colour, label=label)
    axis.plot(readers[after], uniform.cross(1.0, readers)[i, after, 0].real, color=colour, ls="--")
axis.set(xlabel="reader's position $\\sigma$", ylabel="Re $\\hat C(1, \\sigma, 1; \\sigma_0)$", yscale="log")
axis.legend(title="smooth law (uniform: dashed)")
plt.show()

# %% [markdown]
# ## Theorem 1.1: rates in N
#
# Codewords with $p(\sigma) = (0.4 - 0.2\sigma, 0.3, 0.2 - 0.1\sigma, 0.1 + 0.3\sigma)$. The empirical measure
# fluctuates by $N^{-1/2}$. The law of the last token is off by $N^{-1}$ only, far below that noise; it is seen
# by coupling every last token to the characteristic of the limit that starts where it does, and in mode 4, in
# which the codewords agree and the spread round the characteristic leaves the clearest mark.


# %%
def probabilities(s):
    return jnp.array([0.4, 0.3, 0.2, 0.1]) + s * jnp.array([-0.2, 0.0, -0.1, 0.3])


words = jk.CodewordPrompts(probabilities)
limit = solve_mean_field(model, words, [1.0])
steps = jk.Solve(solver=diffrax.Tsit5(), step=0.1)


def ends(n_tokens, n_prompts):
    def one(p):
        start = words.sample(jax.random.fold_in(jax.random.key(n_tokens), p), n_tokens)
        return start, jk.simulate(model, start, [1.0], steps).angles[0]

    return jax.jit(lambda p: jax.lax.map(one, p, batch_size=32))(jnp.arange(n_prompts))


def fit(sizes, values, errors):
    """Weighted least-squares slope of log(values) over log(sizes) and its standard error."""
    x, y, w = np.log(sizes), np.log(values), np.asarray(values) / np.asarray(errors)
    (slope, level), covariance = np.polyfit(x, y, 1, w=w, cov="unscaled")
    return slope, level, float(np.sqrt(covariance[0, 0]))


nodes, gauss = np.polynomial.legendre.leggauss(16)
positions = jnp.asarray((nodes + 1) / 2)
exact = jnp.sum(jnp.asarray(gauss / 2) * positions * limit.modes(1.0, positions)[:, 0])
measure_sizes, measure, measure_error = np.array([64, 256, 1024]), [], []
for n_tokens in measure_sizes:
    _, angles = ends(int(n_tokens), 128)
    j = jnp.arange(1, n_tokens + 1) / n_tokens
    squares = jnp.abs(jnp.mean(j[None, :] * jnp.exp(-1j * angles), axis=1) - exact) ** 2
    measure.append(float(jnp.sqrt(jnp.mean(squares))))
    measure_error.append(float(jnp.std(squares) / np.sqrt(128) / (2 * measure[-1])))

atoms = limit.characteristics(1.0, 1.0)
token_sizes, token, token_error = np.array([16, 32, 64, 128]), [], []
for n_tokens in token_sizes:
    start, angles = ends(int(n_tokens), 4096)
    coupled = atoms[jnp.round(start[:, -1] / (jnp.pi / 2)).astype(int) % 4]
    values = jnp.exp(-4j * angles[:, -1]) - jnp.exp(-4j * coupled)
    token.append(float(jnp.abs(jnp.mean(values))))
    token_error.append(float(jnp.std(values)) / 64)

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for sizes, values, errors, colour, marker, name in (
    (measure_sizes, measure, measure_error, BLUE, "o", "empirical measure, mode 1"),
    (token_sizes, token, token_error, ORANGE, "s", "law of the last token, mode 4"),
):
    slope, level, uncertainty = fit(sizes, values, errors)
    label = f"{name}: slope {slope:.2f} $\\pm$ {uncertainty:.2f}"
    axis.errorbar(sizes, values, yerr=errors, color=colour, fmt=marker, capsize=3, label=label)
    axis.plot(sizes, np.exp(level) * sizes**slope, color=colour)
axis.set(xscale="log", yscale="log", xlabel="number of tokens N", ylabel="distance to the limit")
axis.legend()
plt.show()

# %% [markdown]
# ## The weights: (2.2) and (2.4)
#
# Rows of $\omega$ sum to one, columns do not: the first token's total influence grows as $\log N$ (2.2). The
# finite kernel $N \omega$ approaches the graphon at the rate $1 / (N \sigma)$ (2.4), $\lambda = 1$.

# %%
sizes = np.array([32, 64, 128, 256, 512, 1024])
columns, distance = [], []
for n_tokens in sizes:
    weights = model.positions.weights(int(n_tokens))
    columns.append(float(jnp.sum(weights[:, 0])))
    # The last row's cells against the graphon's mass in each cell, which is exact for an exponential.
    edges = jnp.arange(n_tokens + 1) / n_tokens
    mass = jnp.diff(jnp.exp(edges - 1)) / (1 - jnp.exp(-1.0))
    distance.append(float(jnp.sum(jnp.abs(weights[-1] - mass))))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
slope, level = np.polyfit(np.log(sizes), columns, 1)
axes[0].plot(sizes, columns, "o", color=BLUE)
axes[0].plot(sizes, slope * np.log(sizes) + level, color=BLUE, label=f"{slope:.2f} log N + {level:.2f}")
axes[0].set(xscale="log", xlabel="number of tokens N", ylabel="column sum $\\sum_j \\omega_{j1}$")
slope, level = np.polyfit(np.log(sizes), np.log(distance), 1)
axes[1].plot(sizes, distance, "s", color=ORANGE)
axes[1].plot(sizes, np.exp(level) * sizes**slope, color=ORANGE, label=f"slope {slope:.2f}")
axes[1].set(xscale="log", yscale="log", xlabel="number of tokens N")
axes[1].set_ylabel("$\\int |K_N(1, \\cdot) - k(1, \\cdot)|$")
for axis in axes:
    axis.legend()
plt.show()
