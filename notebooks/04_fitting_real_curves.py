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
# # Fitting real curves
#
# What do measured retrieval curves say about the sharpness of attention $\beta$ and the positional bias $\lambda$? This
# notebook fits the published curves of Liu et al. (2023), quantifies the uncertainty, compares the model with simpler
# and more flexible curves, finds the measurement that would help most, and plans an experiment that would settle it.
# Equation numbers are those of [arXiv 2605.09213](https://arxiv.org/abs/2605.09213).

# %%
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic import plotting

# %% [markdown]
# ## The data
#
# A language model answers 2655 questions, each with one relevant document among 10, 20 or 30, for several positions of that
# document. The model of the curve is
#
# $$\text{accuracy}(\sigma_0) = c_0 + c_1 S_t(\sigma_0; \beta, \lambda), \qquad c_1 \ge 0,$$
#
# with $S_t$ the closed form (1.21) at $t = 1$ and $M = 8$; $\beta$ and $\lambda$ belong to the language model, $c_0$ and
# $c_1$ to each length.

# %%
name = "GPT-3.5-Turbo (16K)"
curves = jk.load_curves("liu2024", model=name)
fig, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for i, (curve, ax) in enumerate(zip(curves, axes, strict=True)):
    plotting.plot_curve(curve, ax, plotting.COLOURS[i], plotting.MARKERS[i])
    ax.set_title(f"{name}, {curve.n_items} documents", fontsize=9)
plt.show()

# %% [markdown]
# ## Least squares, for every model
#
# An end marked `<` or `>` is set by the search range and not by the data: the parameter is unidentified. p is the
# probability of a chi-squared at least as large if the model were true.

# %%
fits = [jk.fit_curves(jk.load_curves(model=m)) for m in jk.list_models()]
for fit in fits:
    print(f"{fit.curves[0].name:<20} chi-squared {fit.chi2:5.1f} / {fit.dof}, p = {fit.p_value:.1g}")
    for parameter in ("beta", "lam"):
        print(f"{'':<20} {parameter:<4} {fit.describe(parameter)}")

# %%
plotting.plot_fits(fits)
plt.show()

# %% [markdown]
# The curves of GPT-3.5 reject the model for all $\beta$ and $\lambda$: their error bars are one per cent, and their contrast
# is the same at all lengths, whereas the theory predicts a decay as $1/N$. LongChat, Claude and MPT do not reject the
# model strongly, and none of their curves identifies $\beta$.
#
# ## Why beta is not identified
#
# As $\beta$ and $\lambda$ go to 0 together, the shape tends to $r\sigma_0 - \log\sigma_0$ with
# $r = 2\lambda / (a_1 t)$, and $c_1$ absorbs the amplitude. Along that ridge an offset and a contrast absorb every change.
# Here is the limit, beside the shapes themselves at one value of r:

# %%
sources = np.linspace(0.02, 1.0, 200)
r = 3.0
fig, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
for i, beta in enumerate((0.02, 0.1, 0.4)):
    kernel = jk.ExpCosine(beta)
    lam = r * float(kernel.growth_rates()[0]) / 2
    model = jk.CausalAttention(kernel, jk.ALiBi(lam))
    shape = np.asarray(jk.retrieval_profile(model, 1.0, 8, sources).values)
    shape = (shape - shape.mean()) / shape.std()
    ax.plot(
        sources,
        shape,
        color=plotting.COLOURS[i],
        ls=("-", "--", "-.")[i],
        label=rf"$\beta={beta}$, $\lambda={lam:.3g}$",
    )
limit = r * sources - np.log(sources)
ax.plot(sources, (limit - limit.mean()) / limit.std(), "k:", lw=2, label=r"$r\sigma_0 - \log\sigma_0$")
ax.set_xlabel(r"position of the source, $\sigma_0$")
ax.set_ylabel(r"$S_t$, mean 0 and standard deviation 1")
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## The posterior
#
# The exact posterior of $(\beta, \lambda)$, with offset and contrast integrated in closed form and the priors stated above
# the figure. An end set by the prior is marked as open. The evidence, which penalises flexibility, is compared with that
# of constant, quadratic and free-form curves.

# %%
posteriors = {
    m: jk.curve_posterior(jk.load_curves(model=m)) for m in ("MPT-30B-Instruct", "LongChat-13B (16K)", name)
}
for m, posterior in posteriors.items():
    against = ", ".join(
        f"{posterior.log_evidence - z:+.1f} against {a}" for a, z in posterior.log_evidence_of.items()
    )
    print(
        f"{m:<20} beta {posterior.describe('beta')}, lam {posterior.describe('lam')}\n{'':<20} log evidence {against}"
    )

# %%
plotting.plot_posterior(posteriors["MPT-30B-Instruct"])
plt.show()

# %% [markdown]
# MPT-30B-Instruct, the only one of these models that actually uses ALiBi, has two modes. In one $\lambda$ is large: only
# the last few documents have an effect, and the rise at the start is noise. In the other $\lambda\sim\beta$: a U along
# the ridge. Fifteen points with error bars of one per cent do not distinguish them.
#
# For GPT-3.5 the free form has the larger evidence, in spite of its many parameters. The theory does best for LongChat,
# against all alternatives.
#
# ## Do two models share beta and lambda?
#
# Compare the evidence of all curves together with the sum of that of each model alone.

# %%
pair = [jk.load_curves(model=m) for m in ("Claude-1.3", "Claude-1.3 (100K)")]
together = jk.curve_posterior([*pair[0], *pair[1]])
apart = [jk.curve_posterior(c) for c in pair]
gain = together.log_evidence - sum(p.log_evidence for p in apart)
print(f"two windows of Claude share beta and lambda: log evidence {gain:+.2f} against a pair for each")
for parameter in ("beta", "lam"):
    print(f"{parameter:<4} together {together.describe(parameter)}, alone {apart[0].describe(parameter)}")

# %% [markdown]
# ## Which measurement would help most?
#
# The expected information about $(\beta, \lambda)$ from one more point of a curve, over the current posterior, in nats: the
# region shrinks by about $e^{-I}$. The models need opposite measurements. For MPT the question is whether only the
# last documents matter, and a point there answers it; for LongChat the start of the prompt is uncertain.

# %%
for m in ("MPT-30B-Instruct", "LongChat-13B (16K)"):
    more = jk.next_measurement(posteriors[m], n_questions=[1000, 10_000])
    print(more, end="\n\n")
    plotting.plot_next_measurement(more)
    plt.show()

# %% [markdown]
# ## An experiment that would settle it
#
# The Fisher information tells in advance how well a planned curve determines $\beta$ and $\lambda$. Five positions do not
# suffice for any realistic number of questions; small M, a larger bias and more positions do.

# %%
plans = {
    "as published: 5 positions, 2655 questions each": (5, 2655, 1.0, 1.0, 0.5, 0.05, 8),
    "30 positions, 2655 questions each": (30, 2655, 1.0, 1.0, 0.5, 0.05, 8),
    "M = 3, lambda = 6, 30 positions, weak contrast": (30, 2655, 2.0, 6.0, 0.3, 0.02, 3),
    "M = 3, lambda = 6, 16 positions, strong contrast": (16, 5000, 2.0, 6.0, 0.2, 0.1, 3),
}
planned = {}
for label, (n_positions, n_questions, beta, lam, c0, c1, vocab_size) in plans.items():
    at = (np.arange(n_positions) + 0.5) / n_positions
    theory = jk.theories.paper(vocab_size=vocab_size)
    planned[label] = jk.plan_experiment(at, n_questions, [beta, lam], c0=c0, c1=c1, theory=theory)
    print(f"{label:<50} beta {planned[label].describe('beta')}, lam {planned[label].describe('lam')}")

# %% [markdown]
# Fisher information is local and misses a second mode. Synthetic experiments, drawn from the values $\beta = 2$,
# $\lambda = 6$ of the last two plans, reveal it: at weak contrast the ridge at small $\beta$ describes the curve equally
# well, and the posterior includes it; at strong contrast it is gone.

# %%
for label in list(plans)[2:]:
    plan = planned[label]
    counts = np.random.default_rng(0).binomial(plan.n_questions.astype(int), plan.accuracy)
    found = jk.curve_posterior(
        jk.RetrievalCurve(plan.sources, counts / plan.n_questions, plan.n_questions), theory=plan.theory
    )
    print(f"{label:<50} beta {found.describe('beta')}, lam {found.describe('lam')}")
plotting.plot_posterior(found)
plt.show()
