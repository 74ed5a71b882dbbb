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
# Prompts of N tokens whose law varies with position approach the mean field (1.10), and their covariances, times N,
# approach the cross-correlation (1.18). This notebook solves both limits, draws them, and compares them with
# particles: Theorem 1.1 with its rates, the covariances and sensitivities of Lemma 3.1, Theorem 1.2, and the weights
# behind them, (2.2) and (2.4).

# %%
import functools

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic.limit import Resolution, solve_correlations, solve_mean_field
from jaxkinetic.limit.closed_form import volterra_hardy

jax.config.update("jax_enable_x64", True)
# Okabe and Ito's colours, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#E69F00", "#009E73", "#000000"
model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))

# %% [markdown]
# ## The mean field of a smooth law
#
# $f_\circ(\sigma, \theta) = 1 + 0.6 \cos(\theta - 2 \sigma) + 0.2\, \sigma \sin 2 \theta$: the favoured angle turns
# with position. Attention draws angles together, and later tokens follow earlier ones.

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
# $\hat C(1, \sigma, n; \sigma_0)$ for $\varphi = e^{i\theta}$. All tokens after the source are correlated with it; for
# uniform prompts (dashed) the correlation is (1.23).

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
# ## How fast the solvers converge
#
# Errors of the mean field and of the correlations fall faster than any power of the number of nodes in position, of nodes
# from the source on, and of Fourier modes in the angle, down to the tolerance of the time steps.

# %%
everywhere, few = jnp.linspace(0.05, 1, 40), 6


def solutions(law, nodes=33, source_nodes=33, modes=64, options=None):
    """f, A and C in the first modes, for sources 0.1, 0.3 and 0.9."""
    given = Resolution(nodes, source_nodes, modes, tolerance=np.inf)
    found = solve_correlations(model, law, [1.0], [0.1, 0.3, 0.9], resolution=given, options=options)
    return found.field.modes(1.0, everywhere, few), found.auto(1.0, few), found.cross(1.0, everywhere, few)


def field_alone(nodes):
    given = Resolution(nodes, modes=64, tolerance=np.inf)
    return (solve_mean_field(model, law, [1.0], resolution=given).modes(1.0, everywhere, few),)


reference = solutions(law)
sweeps = {
    "nodes in position": ("f", [(n, field_alone(n)) for n in (5, 7, 9, 11)]),
    "nodes from the source": ("  C", [(n, solutions(law, source_nodes=n)) for n in (7, 11, 15)]),
    "Fourier modes": ("fAC", [(n, solutions(law, modes=n)) for n in (8, 11, 14)]),
}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True, layout="constrained")
for axis, (what, (names, runs)) in zip(axes, sweeps.items(), strict=True):
    counts = np.array([n for n, _ in runs])
    for i, name in enumerate(names):
        if name == " ":
            continue  # f and A do not depend on nodes from the source
        colour, marker = {"f": (BLUE, "o"), "A": (ORANGE, "s"), "C": (GREEN, "^")}[name]
        errors = np.array(
            [float(jnp.abs(run[i] - reference[i]).max() / jnp.abs(reference[i]).max()) for _, run in runs]
        )
        rate, level = np.polyfit(counts, np.log10(errors), 1)
        axis.semilogy(counts, errors, marker, color=colour)
        axis.semilogy(
            counts, 10 ** (level + rate * counts), color=colour, label=f"{name}: $10^{{{rate:.2f}}}$ for each"
        )
    axis.set(xlabel=f"number of {what}")
    axis.legend()
axes[0].set_ylabel("largest error over largest value, t = 1")
plt.show()

# %% [markdown]
# At the default sizes both the smooth law and the codewords used below are converged. With finer nodes, more modes and
# tighter steps they change by

# %%
words = jk.CodewordPrompts(lambda s: [0.4 - 0.2 * s, 0.3, 0.2 - 0.1 * s, 0.1 + 0.3 * s])
tight = jk.Solve(rtol=1e-13, atol=1e-13)
for name, some in (("smooth", law), ("codewords", words)):
    coarse, fine = solutions(some), solutions(some, 49, 57, 96, tight)
    changes = [float(jnp.abs(c - f).max() / jnp.abs(f).max()) for c, f in zip(coarse, fine, strict=True)]
    print(f"{name:>10}: " + ", ".join(f"{part} {x:.0e}" for part, x in zip("fAC", changes, strict=True)))

# %% [markdown]
# ## Uniform over codewords, or over the circle
#
# Prompts that are uniform over M codewords are at rest, like those that are uniform on the circle, but they have the modes
# $n = 0$ mod $M$. Their retrieval differs from (1.21); lines are its closed form, points the solver for any law. More words
# alone do not close the gap: the decoder sharpens with M, and on codewords its modes near $n = M$ are aliases of those near
# $n = 0$. With few words retrieval decreases as $\beta$ grows, because tokens on the same word hold each other there.

# %%
betas = jnp.linspace(0.1, 4, 40)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for vocabulary, colour, line in ((3, BLUE, "-"), (4, ORANGE, "--"), (8, GREEN, "-."), (16, BLACK, ":")):

    def compare(beta, vocabulary=vocabulary):
        sharp = jk.CausalAttention(jk.ExpCosine(beta, n_modes=32), model.positions)
        codewords = jk.uniform_codeword_correction(sharp, 0.5, vocabulary, 0.3)
        return codewords / jk.retrieval_profile(sharp, 0.5, vocabulary, jnp.array([0.3])).values[0]

    found = jax.jit(jax.vmap(compare))(betas)
    axis.plot(betas, found, color=colour, ls=line, label=f"M = {vocabulary}")
    shown = [f"{float(jnp.interp(b, betas, found)):.3f}" for b in (0.1, 1, 2, 4)]
    print(f"M = {vocabulary:>2}: codewords / circle at beta = 0.1, 1, 2, 4: {', '.join(shown)}")
    for beta in (0.5, 2.0, 3.5) if vocabulary <= 8 else ():
        sharp = jk.CausalAttention(jk.ExpCosine(beta), model.positions)
        even = jk.CodewordPrompts(np.full(vocabulary, 1 / vocabulary))
        solved = jk.retrieval_profile(sharp, 0.5, vocabulary, [0.3], prompts=even).values[0]
        circle = jk.retrieval_profile(sharp, 0.5, vocabulary, [0.3]).values[0]
        axis.plot(beta, solved / circle, "o", color=colour, mfc="white")
axis.axhline(1, color="0.7", lw=0.8)
axis.set(xlabel="sharpness of attention $\\beta$")
axis.set_ylabel("retrieval, codewords / circle, t = 0.5, $\\sigma_0$ = 0.3")
axis.legend()
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
measure_sizes, measure, measure_error = np.array([64, 512, 4096]), [], []
for n_tokens in measure_sizes:
    _, angles = ends(int(n_tokens), 128)
    j = jnp.arange(1, n_tokens + 1) / n_tokens
    squares = jnp.abs(jnp.mean(j[None, :] * jnp.exp(-1j * angles), axis=1) - exact) ** 2
    measure.append(float(jnp.sqrt(jnp.mean(squares))))
    measure_error.append(float(jnp.std(squares) / np.sqrt(128) / (2 * measure[-1])))

atoms = limit.characteristics(1.0, 1.0)
token_sizes, token, token_error = np.array([16, 64, 256]), [], []
for n_tokens in token_sizes:
    start, angles = ends(int(n_tokens), 4096)
    coupled = atoms[jnp.round(start[:, -1] / (jnp.pi / 2)).astype(int) % 4]
    values = jnp.exp(-4j * angles[:, -1]) - jnp.exp(-4j * coupled)
    token.append(float(jnp.abs(jnp.mean(values))))
    token_error.append(float(jnp.std(values)) / 4096**0.5)

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
# ## Lemma 3.1: sensitivities and covariances
#
# (3.5): the sensitivity of token i to token k is of order $1/i$ and grows slowly with $\log(i / k)$; for uniform prompts
# the limit predicts its root mean square, $\sqrt{2 \sum_n g_{a_n}^2} / N$. (3.3): the covariances of the codewords above
# fall as $1/i$ at a fixed ratio $i / j$, and at fixed i grow slowly with $\log(i / j)$. Two steps reduce their noise to the
# order of the signal: all four words of token j are run, and the characteristic of the limit is subtracted from token i.
# i = N throughout.


# %%
def sensitivities(n_tokens, n_prompts):
    def one(p):
        start = jk.UniformPrompts().sample(jax.random.fold_in(jax.random.key(n_tokens), p), n_tokens)
        return jax.grad(lambda theta: jk.simulate(model, theta, [1.0], steps).angles[0, -1])(start)

    squares = jax.jit(lambda p: jax.lax.map(one, p, batch_size=32))(jnp.arange(n_prompts)) ** 2
    root = jnp.sqrt(jnp.mean(squares, axis=0))
    return np.asarray(root), np.asarray(jnp.std(squares, axis=0) / jnp.sqrt(n_prompts) / (2 * root))


@functools.partial(jax.jit, static_argnums=(0, 1))
def conditional_means(n_tokens, n_prompts, j):
    """Of every prompt over the words of token j (from 0): covariances, and means of either token."""
    choices, n = jnp.asarray(words.atoms), jnp.arange(1, 5)
    p = probabilities((j + 1) / n_tokens)

    def one(prompt):
        start = words.sample(jax.random.fold_in(jax.random.key(n_tokens), prompt), n_tokens)
        end = jax.vmap(lambda word: jk.simulate(model, start.at[j].set(word), [1.0], steps).angles[0])(choices)
        own = atoms[jnp.round(start[-1] / (jnp.pi / 2)).astype(int) % 4]
        last = jnp.exp(-1j * jnp.outer(end[:, -1], n)) - jnp.exp(-1j * n * own)
        now, before = jnp.exp(1j * end[:, j]), jnp.exp(1j * choices)
        centred = p[:, None] * (last - p @ last)
        return (now @ centred)[0], p @ last[:, 0], p @ now, before @ centred

    return jax.lax.map(one, jnp.arange(n_prompts), batch_size=32)


def covariances(n_tokens, n_prompts, ratio=4):
    given, last, now, before = conditional_means(n_tokens, n_prompts, jnp.asarray(n_tokens // ratio - 1))
    both = jnp.real(given + (last - last.mean()) * (now - now.mean()))
    spread = jnp.sqrt(jnp.var(before.real, axis=0) + jnp.var(before.imag, axis=0))
    return tuple(
        np.asarray(x)
        for x in (both.mean(), both.std() / n_prompts**0.5, before.mean(axis=0), spread / n_prompts**0.5)
    )


token_sizes = np.array([32, 64, 128])
roots = [sensitivities(int(n), 256) for n in token_sizes]
pair_sizes = np.array([16, 32, 64, 128])
pairs = [covariances(int(n), 1024) for n in pair_sizes]
ratios = np.array([2, 4, 8, 16, 32, 64])
apart = [covariances(128, 1024, int(r)) for r in ratios]

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
quarter = [[part[n // 4 - 1] for part in root] for n, root in zip(token_sizes, roots, strict=True)]
for sizes, (values, errors), colour, marker, name in (
    (token_sizes, zip(*quarter, strict=True), BLUE, "o", "sensitivity at k = i / 4"),
    (pair_sizes, zip(*[pair[:2] for pair in pairs], strict=True), ORANGE, "s", "covariance with j = i / 4"),
):
    values, errors = np.array(values), np.array(errors)
    slope, level, uncertainty = fit(sizes, values, errors)
    axes[0].errorbar(sizes, values, yerr=errors, color=colour, fmt=marker, capsize=3)
    label = f"{name}: slope {slope:.2f} $\\pm$ {uncertainty:.2f}"
    axes[0].plot(sizes, np.exp(level) * sizes**slope, color=colour, label=label)
axes[0].set(xscale="log", yscale="log", xlabel="token $i = N$", ylabel="root mean square, covariance")
axes[0].set_xticks(pair_sizes, pair_sizes)
axes[0].legend(loc="lower left")

k = 2 ** np.arange(7)
ratio = jnp.geomspace(1.9, 140, 60)
profile = jax.vmap(jax.vmap(volterra_hardy, (0, None, None, None, None)), (None, None, None, 0, None))
g = profile(model.kernel.growth_rates(), jnp.ones(()), jnp.ones(()), 1 / ratio, model.positions)
root, error = roots[-1]
axes[1].errorbar(
    128 / k, 128 * root[k - 1], yerr=128 * error[k - 1], color=BLUE, fmt="o", capsize=3, label="i = 128"
)
axes[1].plot(ratio, jnp.sqrt(2 * jnp.sum(g**2, axis=1)), color=BLACK, label="the limit, (1.23)")
axes[1].set(xscale="log", xlabel="$i / k$", ylabel="$i$ times the root mean square sensitivity")
axes[1].legend()

axes[2].errorbar(
    ratios, [128 * a[0] for a in apart], yerr=[128 * a[1] for a in apart], color=ORANGE, fmt="s", capsize=3,
    label="both at t = 1",
)  # fmt: skip
axes[2].errorbar(
    ratios, [128 * a[2][0].real for a in apart], yerr=[128 * a[3][0] for a in apart], color=GREEN, fmt="^", capsize=3,
    label="token j at 0",
)  # fmt: skip
smooth_ratios = np.geomspace(1.9, 70, 24)
between = solve_correlations(model, words, [1.0], 1 / smooth_ratios).cross(1.0, 1.0, 1)[:, 0].real
axes[2].plot(smooth_ratios, between, color=BLACK, label="the limit, (1.18)")
axes[2].set(xscale="log", xlabel="$i / j$", ylabel="$i$ times the covariance, i = 128", ylim=(0, None))
axes[2].set_xticks(ratios, ratios)
for axis in axes[::2]:
    axis.xaxis.set_minor_locator(plt.NullLocator())
axes[2].legend()
plt.show()

# %% [markdown]
# ## Theorem 1.2: covariances approach $\hat C / N$
#
# The same prompts against the initial angle of token j: N times the covariance is $\hat C(1, 1, n; 1/4)$ and a
# correction of order $1/N$, largest in mode 4.

# %%
exact = np.asarray(solve_correlations(model, words, [1.0], 0.25).cross(1.0, 1.0, 4))
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for mode, colour, marker in zip(range(4), (BLUE, ORANGE, GREEN, BLACK), "os^D", strict=True):
    values = np.array([n * pair[2][mode] for n, pair in zip(pair_sizes, pairs, strict=True)])
    errors = np.array([n * pair[3][mode] for n, pair in zip(pair_sizes, pairs, strict=True)])
    axis.errorbar(
        1 / pair_sizes,
        values.real / exact[mode].real,
        yerr=errors / abs(exact[mode].real),
        color=colour,
        fmt=marker,
        capsize=3,
        label=f"n = {mode + 1}",
    )
    weights = abs(exact[mode].real) / errors
    line = np.sum(weights**2 / pair_sizes * (values.real / exact[mode].real - 1)) / np.sum(
        (weights / pair_sizes) ** 2
    )
    axis.plot([0, 1 / 16], [1, 1 + line / 16], color=colour, lw=1)
axis.set(xlabel="1 / N", ylabel="N Re Cov / Re $\\hat C$", xlim=(0, 0.066))
axis.legend()
plt.show()

# %% [markdown]
# Redrawing one token gives the same and works for every law: with $\theta_i$ drawn again and both prompts run, Cov(X, φ)
# is half the mean of (X - X')(φ - φ'), whose noise is of the order of the signal. Here both laws at N = 64 and 256 for the
# source 0.3125, every mode of the reader against $e^{i\theta}$ of the source.


# %%
def redrawn(law, n_tokens, n_prompts):
    i, n = round(0.3125 * n_tokens) - 1, jnp.arange(1, 5)

    def one(p):
        first, second = jax.random.split(jax.random.fold_in(jax.random.key(n_tokens), p))
        start, other = law.sample(first, n_tokens), law.sample(second, n_tokens)[i]
        both = jnp.stack([start, start.at[i].set(other)])
        last = jax.vmap(lambda theta: jk.simulate(model, theta, [1.0], steps).angles[0, -1])(both)
        moved = jnp.exp(-1j * n * last[0]) - jnp.exp(-1j * n * last[1])
        return n_tokens * moved * (jnp.exp(1j * start[i]) - jnp.exp(1j * other)) / 2

    values = jax.jit(lambda p: jax.lax.map(one, p, batch_size=32))(jnp.arange(n_prompts))
    spread = jnp.sqrt(jnp.var(values.real, axis=0))
    return np.asarray(jnp.mean(values, axis=0).real), np.asarray(spread) / n_prompts**0.5


figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, (name, some) in zip(axes, (("smooth law", law), ("codewords", words)), strict=True):
    exact = np.asarray(solve_correlations(model, some, [1.0], 0.3125).cross(1.0, 1.0, 4)).real
    axis.bar(np.arange(1, 5), exact, color="0.85", edgecolor="0.4", label="the limit, (1.18)")
    for n_tokens, shift, colour, marker in ((64, -0.12, BLUE, "o"), (256, 0.12, ORANGE, "s")):
        values, errors = redrawn(some, n_tokens, 2048)
        axis.errorbar(
            np.arange(1, 5) + shift, values, yerr=1.96 * errors, color=colour, fmt=marker, capsize=3,
            label=f"N = {n_tokens}, 95 %",
        )  # fmt: skip
    axis.axhline(0, color="0.4", lw=0.8)
    axis.set(xlabel="mode n of the reader", xticks=range(1, 5), title=name)
axes[0].set_ylabel("N Re Cov$(e^{-in\\theta_N(1)}, e^{i\\theta_i(0)})$")
axes[1].legend()
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
(slope, level), covariance = np.polyfit(np.log(sizes), columns, 1, cov=True)
label = f"({slope:.3f} $\\pm$ {np.sqrt(covariance[0, 0]):.3f}) log N + {level:.2f}"
axes[0].plot(sizes, columns, "o", color=BLUE)
axes[0].plot(sizes, slope * np.log(sizes) + level, color=BLUE, label=label)
known = np.euler_gamma + np.log(1 - np.exp(-1))
axes[0].plot(sizes, np.log(sizes) + known, color=BLACK, ls=":", label=f"log N + {known:.2f}, the limit")
axes[0].set(xscale="log", xlabel="number of tokens N", ylabel="column sum $\\sum_j \\omega_{j1}$")
(slope, level), covariance = np.polyfit(np.log(sizes), np.log(distance), 1, cov=True)
axes[1].plot(sizes, distance, "s", color=ORANGE)
label = f"slope {slope:.3f} $\\pm$ {np.sqrt(covariance[0, 0]):.3f}"
axes[1].plot(sizes, np.exp(level) * sizes**slope, color=ORANGE, label=label)
axes[1].set(xscale="log", yscale="log", xlabel="number of tokens N")
axes[1].set_ylabel("$\\int |K_N(1, \\cdot) - k(1, \\cdot)|$")
for axis in axes:
    axis.legend()
plt.show()
