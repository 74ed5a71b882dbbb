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
# # The U from particles
#
# In a prompt of $N$ tokens the correlation of the last token with a source is a signal of size $1/N$ under noise of size 1.
# Plain averages need about $N^2$ prompts to resolve it, which is why the U of the theory is not visible in a naive
# simulation. This notebook shows it with error bars: three unbiased estimators, the rate at which finite prompts
# approach the limit (Theorem 1.2), and the fate of the U at and beyond the theorem's condition (1.22).

# %%
import sys

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic.plotting import COLOURS, MARKERS, plot_estimate, plot_profile_line, plot_simulation_fit

model = jk.CausalAttention(jk.ExpCosine(beta=1.0), jk.ALiBi(lam=1.0))
key = jax.random.key(0)

# %% [markdown]
# ## Signal and noise
#
# The same 512 prompts of 64 tokens, evaluated in three ways. *Naive* averages
# $N \sum_n w_n \cos n(\theta_N(t) - \theta_i(0))$. *Adjoint* integrates by parts in the source's initial angle and so needs
# the derivative of the last token in every source, which one reverse pass gives. The *control variate* subtracts the
# limit's prediction for the same prompt, whose mean is known.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
cases = (("naive", False), ("adjoint", False), ("adjoint", True))
for ax, (estimator, control), colour in zip(axes, cases, (COLOURS[0], COLOURS[2], COLOURS[3]), strict=True):
    found = jk.estimate_profile(
        model, 1.0, 8, 64, n_prompts=512, key=key, estimator=estimator, control_variate=control
    )
    plot_estimate(found, ax, colour)
    plot_profile_line(model, 1.0, 8, ax)
    ax.set_title(f"{estimator}{', control variate' if control else ''}", fontsize=11)
    ax.legend(fontsize=8)
    one = float(np.median(found.standard_error)) * 512**0.5
    print(f"{ax.get_title()}: {(one / 0.012) ** 2:.0e} prompts for one per cent of the lowest value")
plt.show()

# %% [markdown]
# ## Prompts of words
#
# Codewords allow no integration by parts. Redrawing the source and running both prompts works for any law. Here are four
# codewords with $p(\sigma) = (0.4 - 0.2\sigma, 0.3, 0.2 - 0.1\sigma, 0.1 + 0.3\sigma)$, compared with the correlation
# equations (1.17), (1.18).

# %%
words = jk.CodewordPrompts(lambda s: [0.4 - 0.2 * s, 0.3, 0.2 - 0.1 * s, 0.1 + 0.3 * s])
found = jk.estimate_profile(model, 1.0, 4, 128, n_prompts=512, key=key, prompts=words)
limit = jk.retrieval_profile(model, 1.0, 4, found.sources, prompts=words)
figure, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
plot_estimate(found, ax)
ax.plot(found.sources, limit.values, "x", color=COLOURS[1], label="limit, correlation solver")
ax.legend()
plt.show()
print(f"{found.estimator}, at most {np.abs(found.values / limit.values - 1).max():.1%} from the limit at N = 128")

# %% [markdown]
# ## Theorem 1.2: the distance to the limit falls as $1/N$
#
# The distance is far below the noise of one prompt. Two more steps resolve it (`scripts/convergence.py`): the prompt is
# run with every value of the source, so that only the other tokens fluctuate, and the estimate is regressed on the
# Fourier modes of those tokens, whose means are known.

# %%
sys.path.append("..")
from scripts.convergence import CODEWORDS, distance, slope

sizes = np.array([32, 64, 128])
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True, layout="constrained")
for ax, law, name, degree in zip(
    axes, (jk.UniformPrompts(), CODEWORDS), ("uniform", "codeword"), (3, 1), strict=True
):
    found = [distance(law, int(n), 384, degree, seed=int(n)) for n in sizes]
    for k, place in enumerate((0.25, 0.5, 0.75)):
        values, errors = (np.array([getattr(f, what)[k] for f in found]) for what in ("values", "errors"))
        exponent, level, error = slope(sizes, values, errors)
        label = rf"$\sigma_0$ = {place:g}: slope {exponent:.2f} $\pm$ {error:.2f}"
        ax.errorbar(sizes, np.abs(values), errors, color=COLOURS[k], fmt=MARKERS[k], capsize=3, label=label)
        ax.plot(sizes, np.exp(level) * sizes**exponent, color=COLOURS[k], lw=1)
    ax.set(xscale="log", yscale="log", xlabel="number of tokens N", title=f"{name} prompts")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.set_yticks([0.01, 0.02, 0.04], ["0.01", "0.02", "0.04"])
    ax.minorticks_off()
    ax.legend(fontsize=8)
axes[0].set_ylabel(r"$|S_N(\sigma_0) - S(\sigma_0)|$")
plt.show()

# %% [markdown]
# Up to $N = 512$, with five times the prompts (`python scripts/convergence.py`):
#
# ![Distance to the limit at three sources, uniform and codeword prompts, N = 32 to 512](figures/convergence.png)

# %% [markdown]
# ## Does the U hold at finite $N$, and past the condition?
#
# Theorem 1.3 asks for $t \sup_n a_n \leq \min(3 - \sqrt 3, 2(1 - e^{-\lambda}))$ (1.22). At $\lambda = 6$ that is
# $t \leq 2.244$, and the limit loses its recency only at $t = 3.878$. Profiles of 100 tokens, averaged over twentieths of
# the prompt, and how far they rise from the last tenth but one to the last:

# %%
from scripts.finite_n import depths, draw_profiles, shape_of, verdict

biased = jk.CausalAttention(jk.ExpCosine(beta=1.0), jk.ALiBi(lam=6.0))
figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
names = ("inside", "at the edge of", "past", "far past")
for ax, time, where in zip(axes, depths(6.0)[0], names, strict=True):
    shape = shape_of(biased, time, 100, 1024)
    draw_profiles(ax, {100: shape})
    ax.set_title(f"t = {time:.3g}: {where} (1.22)", fontsize=11)
    ax.legend(fontsize=8)
    rise, error, expected = shape.recency
    print(
        f"t = {time:.3f}, {where} (1.22): {verdict(shape.recency)}, {rise:.1f} +- {error:.1f} %, limit {expected:.1f} %"
    )
axes[0].set_ylabel(r"$S_N(\sigma_0)$ above the limit's lowest (%)")
plt.show()

# %% [markdown]
# Nothing happens at the condition. The figure has 100, 300 and 1000 tokens at three positional biases, with up to 32 times
# the prompts (`python scripts/finite_n.py`): above, the rise against depth; below, profiles beyond the condition. Where the
# second side of (1.22) binds, the limit loses its recency soon after it, and so do prompts within their error bars; where
# the first side binds, the U extends far beyond the condition.
#
# ![Rise towards the end against depth, and profiles past the condition, for N = 100, 300 and 1000](figures/finite_n.png)

# %% [markdown]
# ## A fit where there is no closed form
#
# Sixteen tokens, drawn from the four codewords above: neither the limit nor uniform prompts describe a curve that was
# measured there. `fit_by_simulation` fits $\beta$ and $\lambda$ through the particles. The curve is synthetic, with
# $\beta = 0.7$, $\lambda = -2$ and 10,000 questions at each of eight positions. The panels on the right show the means of
# $\beta$ and $\lambda$ over each block of stochastic steps (hollow: left out), the estimate and its 68 per cent interval.

# %%
planted = jk.CausalAttention(jk.ExpCosine(beta=0.7), jk.ALiBi(lam=-2.0))
sources = (np.arange(8) + 0.5) / 8
shape = jk.estimate_profile(
    planted, 1.0, 4, 16, n_prompts=8192, key=jax.random.key(5), prompts=words, sources=sources, n_steps=2
).values
truth = 0.3 + 0.4 * (shape - shape.min()) / np.ptp(shape)
curve = jk.RetrievalCurve(sources, np.random.default_rng(1).binomial(10_000, truth) / 10_000, 10_000)
theory = jk.theories.paper(vocab_size=4, beta_range=(0.01, 3.0))
fit = jk.fit_by_simulation(
    curve, 16, key, theory=theory, prompts=words, start=(0.8, -1.6), steps=8, batch=256, n_steps=2, tolerance=0.5,
    max_blocks=24, progress=False,
)  # fmt: skip
plot_simulation_fit(fit)
plt.show()
print(f"beta {fit.describe('beta')}, lam {fit.describe('lam')}, chi-squared {fit.chi2:.1f} for {fit.dof}")
print(
    f"converged: {fit.converged}, after {fit.n_prompts} prompts; Monte Carlo error {fit.monte_carlo_error:.2g} of the data's"
)
