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
# # Lost in the middle
#
# Language models find a fact at the start or the end of a prompt and lose it in the middle. *Kinetic theory
# for transformers and the lost-in-the-middle phenomenon* ([arXiv 2605.09213](https://arxiv.org/abs/2605.09213))
# explains the U with tokens as particles on a circle. This notebook goes from the measured curve to the theory,
# to the particles, and back to the data. Equation numbers are the paper's.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic import plotting

# %% [markdown]
# ## What was measured
#
# Liu et al. (2023) placed the one document that answers a question at different positions among 20 and counted correct
# answers. Error bars are binomial, with 2655 questions per point. Without any document the model answers 56 per cent
# of the questions (dashed): in the middle, the right document does not help at all.

# %%
plotting.plot_measured("GPT-3.5-Turbo", n_items=20)
plt.show()

# %% [markdown]
# ## What the theory says
#
# Token $j$ is an angle $\theta_j$ on the circle. Attention moves it towards (or away from) the tokens before it,
#
# $$\dot\theta_j = \sum_{k<j} \omega_{jk}\, w'_\beta(\theta_j - \theta_k),\qquad
# w_\beta(\theta) = e^{\beta\cos\theta},\quad \omega_{jk} \propto e^{-\lambda (j-k)/N}, \tag{1.1}$$
#
# with sharpness $\beta$ and positional bias $\lambda$. For uniform prompts the correlation of the last token with the
# initial value of the token at $\sigma_0 = i/N$ is, to leading order, a closed form: the retrieval profile
# $S_t(\sigma_0)$ of (1.21), which enters the accuracy of a decoder through (1.20).

# %%
model = jk.CausalAttention(kernel=jk.ExpCosine(beta=1.0), positions=jk.ALiBi(lam=1.0))
shape = jk.u_shape(model, time=1.0, vocab_size=8)
print(
    f"U-shaped: {bool(shape.is_u_shaped)}, minimum {float(shape.minimum):.4f} at sigma_0 = {float(shape.argmin):.4f}"
)
print(
    f"Theorem 1.3 applies: {bool(shape.theorem_holds)}; recency holds below t = {float(shape.recency_threshold):.6f}"
)

plotting.plot_profiles(model, (0.25, 0.5, 1.0, 1.5, 2.0, 2.4), vocab_size=8)
plt.show()

# %% [markdown]
# Early tokens are reused by all later ones, which makes the rise on the left, $S_t \to \infty$ as $\sigma_0 \to 0$. The
# positional bias favours recent tokens, which makes the rise on the right. As the depth $t$ grows, the minimum moves
# towards the end until recency is lost, exactly at the threshold printed above. Theorem 1.3 proves the U only
# while $t \sup_n a_n \le \min(3-\sqrt3,\, 2(1-e^{-\lambda}))$; the profile shows how far it extends beyond the theorem:

# %%
depths = jnp.linspace(0.05, 2.6, 120)
shapes = jax.vmap(lambda t: jk.u_shape(model, t, 8))(depths)
fig, ax = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
is_u = np.asarray(shapes.is_u_shaped)
ax.plot(depths[is_u], shapes.argmin[is_u], color=plotting.COLOURS[0], lw=2, label="lowest point of the U")
proved = float(depths[np.asarray(shapes.theorem_holds)][-1])
ax.axvspan(0, proved, color=plotting.COLOURS[2], alpha=0.15, label="Theorem 1.3 proves the U")
ax.axvline(float(shape.recency_threshold), color=plotting.COLOURS[1], ls="--", label="recency ends, exactly")
ax.set_xlabel("depth, $t$")
ax.set_ylabel(r"position of the minimum, $\sigma_0$")
ax.set_ylim(0, 1)
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## The particles
#
# Sixty-four tokens in four packets, as in Figure 3: crosses mark the initial angles, rings the current ones, colours the
# reading order. The last token first stays with its own packet (recency); in the end all tokens have collapsed
# onto the first one (primacy).

# %%
clusters = jk.ClusterPrompts(centers=[0.5, 2.2, 3.6, 5.2], width=0.12)
theta0 = clusters.sample(jax.random.key(0), 64)
trajectory = jk.simulate(model, theta0, [0.0, 1.0, 3.0, 10.0])
print(trajectory)
plotting.plot_snapshots(trajectory)
plt.show()

# %% [markdown]
# A velocity costs $O(N)$ rather than $O(N^2)$, so that long prompts are affordable, and everything is differentiable.
# This is the response of the last of 4096 tokens to the initial angle of every other one:

# %%
long_prompt = jk.UniformPrompts().sample(jax.random.key(1), 4096)
response = jax.grad(lambda theta: jk.simulate(model, theta, [1.0]).angles[-1, -1])(long_prompt)
position = np.arange(1, 4097) / 4096
fig, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
ax.plot(position[:-1], 4096 * response[:-1], ".", ms=1.5, color=plotting.COLOURS[0])
ax.set_xlabel(r"position of the token, $\sigma = i/N$")
ax.set_ylabel(r"$N\, \partial\theta_N(t) / \partial\theta_i(0)$")
ax.set_ylim(-3, 6)
plt.show()

# %% [markdown]
# ## Back to the data
#
# Fit $\beta$ and $\lambda$, shared by the curves of one model over 10, 20 and 30 documents, with an offset and a contrast per
# curve. MPT-30B-Instruct really uses ALiBi.

# %%
fit = jk.fit_curves(jk.load_curves("liu2024", model="MPT-30B-Instruct"))
print(f"chi-squared {fit.chi2:.1f} for {fit.dof} degrees of freedom, p = {fit.p_value:.3f}")
for name in ("beta", "lam"):
    print(name, "is", fit.describe(name))
for alternative in fit.alternatives:
    print(
        f"a {alternative.name} instead: chi-squared {alternative.chi2:.1f}, AIC {alternative.aic:.1f} against {fit.aic:.1f}"
    )
plotting.plot_fit(fit)
plt.show()

# %% [markdown]
# The curves do not identify $\beta$. Two regions of $(\beta, \lambda)$ describe the data about equally well: a ridge along
# which $\lambda \propto \beta$, where the curves are U-shaped, and a strong bias with a rise near the end only. As both
# parameters go to zero on the ridge, the shape tends to $r\sigma_0 - \log\sigma_0$ with $r = 2\lambda/(a_1 t)$; that one
# number is about all that a shallow curve can tell. `04_fitting_real_curves` asks which measurement would tell more.
