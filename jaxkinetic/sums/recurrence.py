"""The causal sum in linear time, the hot kernel of every simulation.

For a trigonometric series h and weights W_{jk} = e^{-d (j-1-k)} e^{-g (k-1)},

    y_j = sum_{k < j} W_{jk} h(theta_j - theta_k) s_k,      h(x) = sum_n c_n cos(n x)  or  sum_n c_n sin(n x).

The addition theorem splits h into 2 K products of a function of theta_j and one of theta_k, so that each
mode needs one weighted prefix sum: O(N K) work instead of O(N^2).

Prefix sums are blocked: a triangular matrix acts inside blocks, and the block totals go through the
same sum. Modes are a scan whose state is e^{i n theta}; writing all powers out at once would make XLA
compute the chain anew for each of them.

The derivative in theta is the sum with h', whose own linear part (in s) transposes to the same sum run
from the last token to the first. That makes one JVP rule serve forward and reverse mode, at the cost
of about one more sum each.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from jaxkinetic._types import Angles, Scalar

BLOCK = 32
Parities = tuple[str, ...]
Exponents = tuple[Scalar, Scalar]


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def causal_sum(
    theta: Angles, series: Float[Array, "kernel mode"], exponents: Exponents, parities: Parities
) -> Float[Array, "kernel token"]:
    """Sum several kernels over all earlier tokens, sum_{k<j} W_{jk} h(theta_j - theta_k).

    Args:
        theta: angles in radians, (N,).
        series: coefficients c_n of each kernel h, (H, K).
        exponents: (d, g) of the weights W.
        parities: for each kernel ``"even"`` (cosines) or ``"odd"`` (sines).

    Returns:
        One sum per kernel and token, (H, N).
    """
    return _evaluate(theta, series, exponents, None, parities)


@partial(causal_sum.defjvp, symbolic_zeros=True)
def _causal_sum_jvp(parities, primals, tangents):
    theta, series, exponents = primals
    dtheta, dseries, dexponents = tangents
    n_kernels = len(parities)
    # SymbolicZero tangents mark what is not differentiated: its share costs nothing.
    if isinstance(dtheta, SymbolicZero):
        value = causal_sum(theta, series, exponents, parities)
        tangent = jnp.zeros_like(value)
    else:
        slope, slope_parities = _differentiate(series, parities)
        both = causal_sum(theta, jnp.concatenate([series, slope]), exponents, (*parities, *slope_parities))
        value = both[:n_kernels]
        tangent = both[n_kernels:] * dtheta[None, :] - propagate(theta, slope, exponents, dtheta, slope_parities)
    if not isinstance(dseries, SymbolicZero):
        tangent = tangent + _linear_in_series(theta, dseries, exponents, parities)
    if not all(isinstance(d, SymbolicZero) for d in dexponents):
        ddecay, dgrowth = (_instantiate(d, e) for d, e in zip(dexponents, exponents, strict=True))
        k = jnp.arange(theta.shape[0], dtype=theta.dtype)
        moment = propagate(theta, series, exponents, k, parities)
        tangent = tangent - ddecay * (k - 1)[None, :] * value + (ddecay - dgrowth) * moment
    return value, tangent


def propagate(
    theta: Angles,
    series: Float[Array, "kernel mode"],
    exponents: Exponents,
    source: Float[Array, " token"],
    parities: Parities,
) -> Float[Array, "kernel token"]:
    """The causal sum of a signal, sum_{k<j} W_{jk} h(theta_j - theta_k) s_k, linear in the source s."""
    return _propagate_p.bind(theta, series, *exponents, source, parities=parities, backwards=False, levels=())


def weight_totals(n_tokens: int, exponents: Exponents) -> Float[Array, " token"]:
    """Total weight sum_{k<j} W_{jk} of the tokens before j; zero for the first token."""
    return _prefix(jnp.ones(n_tokens, exponents[0].dtype), exponents)


def _evaluate(
    theta: Angles,
    series: Float[Array, "kernel mode"],
    exponents: Exponents,
    source: Float[Array, " token"] | None,
    parities: Parities,
) -> Float[Array, "kernel token"]:
    n_tokens, n_modes = theta.shape[0], series.shape[1]
    block = n_tokens if n_tokens <= 2 * BLOCK else BLOCK
    angles = _blocks(theta, block)
    weight = None if source is None else _blocks(source, block)[None]
    first = jnp.stack([jnp.cos(angles), jnp.sin(angles)])

    def add_mode(state, coefficients):
        wave, totals = state
        values = _mode_sums(wave, wave if weight is None else wave * weight, exponents)
        totals = tuple(
            total + a * values[parity] for total, a, parity in zip(totals, coefficients, parities, strict=True)
        )
        return (_next_mode(wave, first), totals), None

    unroll = next(u for u in (4, 2, 1) if n_modes % u == 0)
    start = (first, (jnp.zeros_like(angles),) * len(parities))
    (_, totals), _ = jax.lax.scan(add_mode, start, series.T, unroll=unroll)
    return jnp.stack([total.reshape(-1)[:n_tokens] for total in totals])


def _linear_in_series(
    theta: Angles, series: Float[Array, "kernel mode"], exponents: Exponents, parities: Parities
) -> Float[Array, "kernel token"]:
    """The causal sum with its modes kept apart until the end, so that it transposes in the series.

    A scan that carries waves and what is linear in the series together has no transpose in every JAX.
    """
    n_tokens = theta.shape[0]
    angles = _blocks(theta, n_tokens if n_tokens <= 2 * BLOCK else BLOCK)
    first = jnp.stack([jnp.cos(angles), jnp.sin(angles)])

    def one_mode(wave, _):
        return _next_mode(wave, first), _mode_sums(wave, wave, exponents)

    _, sums = jax.lax.scan(one_mode, first, None, length=series.shape[1])
    flat = {parity: values.reshape(values.shape[0], -1)[:, :n_tokens] for parity, values in sums.items()}
    return jnp.stack([_matmul(c, flat[parity]) for c, parity in zip(series, parities, strict=True)])


def _mode_sums(wave: Array, signal: Array, exponents: Exponents) -> dict[str, Array]:
    """Causal sums of cos and sin of n (theta_j - theta_k), given those of n theta."""
    c, s = wave
    earlier_c, earlier_s = _prefix_blocks(signal, exponents)
    return {"even": c * earlier_c + s * earlier_s, "odd": s * earlier_c - c * earlier_s}


def _next_mode(wave: Array, first: Array) -> Array:
    c, s = wave
    return jnp.stack([c * first[0] - s * first[1], s * first[0] + c * first[1]])


def _evaluate_backwards(
    theta: Angles,
    series: Float[Array, "kernel mode"],
    exponents: Exponents,
    cotangent: Float[Array, "kernel token"],
    parities: Parities,
) -> Float[Array, " token"]:
    """Transpose of `propagate`: sum_{j > k} W_{jk} h(theta_j - theta_k) u_j, summed over the kernels."""
    decay, growth = exponents
    only_decay = (decay, jnp.zeros_like(growth))
    total = jnp.zeros_like(theta)
    for coefficients, u, parity in zip(series, cotangent, parities, strict=True):
        mirrored = coefficients if parity == "even" else -coefficients
        total = total + _evaluate(theta[::-1], mirrored[None], only_decay, u[::-1], (parity,))[0, ::-1]
    return total * jnp.exp(-growth * jnp.arange(theta.shape[0], dtype=theta.dtype))


def _differentiate(series, parities):
    n = jnp.arange(1, series.shape[1] + 1, dtype=series.dtype)
    sign = jnp.array([1.0 if parity == "odd" else -1.0 for parity in parities], series.dtype)
    return jnp.outer(sign, n) * series, tuple("even" if p == "odd" else "odd" for p in parities)


def _instantiate(tangent, primal):
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent


# Blocked prefix sums -------------------------------------------------------------------------------


def _blocks(x: Float[Array, " token"], block: int) -> Float[Array, "blocks block"]:
    return jnp.pad(x, (0, -x.shape[0] % block)).reshape(-1, block)


def _prefix_blocks(x: Float[Array, "... blocks block"], exponents: Exponents) -> Float[Array, "... blocks block"]:
    """Sums sum_{k<j} W_{jk} x_k, tokens in blocks along the last two axes."""
    decay, growth = exponents
    n_blocks, block = x.shape[-2:]
    k = jnp.arange(block, dtype=x.dtype)
    lag = k[None, :] - 1 - k[:, None]
    triangle = jnp.where(lag >= 0, jnp.exp(-decay * jnp.maximum(lag, 0) - growth * k[:, None]), 0)
    inside = _matmul(x, triangle)
    if n_blocks == 1:
        return inside
    totals = _matmul(x, jnp.exp(-decay * (block - 1 - k) - growth * k))
    carried = _prefix(totals, (decay * block, growth * block))
    shrink = jnp.exp(-growth * block * jnp.arange(n_blocks, dtype=x.dtype))
    shrink = jnp.broadcast_to(shrink[:, None], inside.shape)
    return shrink * inside + jnp.multiply.outer(carried, jnp.exp(-decay * k))


def _prefix(x: Float[Array, "... token"], exponents: Exponents) -> Float[Array, "... token"]:
    n = x.shape[-1]
    block = n if n <= 2 * BLOCK else BLOCK
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % block)])
    sums = _prefix_blocks(padded.reshape(*x.shape[:-1], -1, block), exponents)
    return sums.reshape(padded.shape)[..., :n]


def _matmul(a, b):
    # On accelerators the default would round the factors to bfloat16 or TF32.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


# The linear primitive ------------------------------------------------------------------------------
# JAX offers no public function that has a custom transpose and can also be batched, and the transpose
# that JAX derives from the scan over modes stores every mode and runs several times slower.

_propagate_p = Primitive("causal_propagate")


def _implementation(*operands, parities, backwards, levels):
    def plain(theta, series, decay, growth, signal):
        evaluate = _evaluate_backwards if backwards else _evaluate
        return evaluate(theta, series, (decay, growth), signal, parities)

    return _nest(plain, levels)(*operands)


def _nest(function: Callable, levels: tuple) -> Callable:
    for axes in levels:
        function = jax.vmap(function, in_axes=(*axes, 0))
    return function


def _jvp(primals, tangents, **params):
    *parameters, signal = primals
    *dparameters, dsignal = tangents
    value = _propagate_p.bind(*primals, **params)
    tangent = None
    if not isinstance(dsignal, ad.Zero):
        tangent = _propagate_p.bind(*parameters, dsignal, **params)
    moved = [i for i, d in enumerate(dparameters) if not isinstance(d, ad.Zero)]
    if moved:

        def of_moved(*values):
            filled = list(parameters)
            for i, v in zip(moved, values, strict=True):
                filled[i] = v
            return _implementation(*filled, signal, **params)

        share = jax.jvp(of_moved, tuple(parameters[i] for i in moved), tuple(dparameters[i] for i in moved))[1]
        tangent = share if tangent is None else tangent + share
    return value, jnp.zeros_like(value) if tangent is None else tangent


def _transpose(cotangent, *operands, parities, backwards, levels):
    *parameters, _ = operands
    if any(ad.is_undefined_primal(p) for p in parameters):
        raise NotImplementedError("The causal sum is linear in its source only.")
    if isinstance(cotangent, ad.Zero):
        return [None] * 4 + [ad.Zero(operands[-1].aval)]
    back = _propagate_p.bind(*parameters, cotangent, parities=parities, backwards=not backwards, levels=levels)
    return [None] * 4 + [back]


def _batch(operands, axes, *, parities, backwards, levels):
    *parameters, signal = operands
    *parameter_axes, signal_axis = axes
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    if signal_axis is None:
        signal = jnp.broadcast_to(signal, (size, *signal.shape))
    else:
        signal = jnp.moveaxis(signal, signal_axis, 0)
    out = _propagate_p.bind(
        *parameters, signal, parities=parities, backwards=backwards, levels=(*levels, tuple(parameter_axes))
    )
    return out, 0


_propagate_p.def_impl(jax.jit(_implementation, static_argnames=("parities", "backwards", "levels")))
_propagate_p.def_abstract_eval(
    lambda *avals, **params: ShapedArray(
        *(lambda out: (out.shape, out.dtype))(jax.eval_shape(partial(_implementation, **params), *avals))
    )
)
mlir.register_lowering(_propagate_p, mlir.lower_fun(_implementation, multiple_results=False))
ad.primitive_jvps[_propagate_p] = _jvp
ad.primitive_transposes[_propagate_p] = _transpose
batching.primitive_batchers[_propagate_p] = _batch
