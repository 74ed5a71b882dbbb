"""A theory of a retrieval curve, and theories made of a function or of a model of attention."""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    Scalar,
    as_float,
    as_numbers,
    check_function,
    check_positive_number,
    check_texts,
    trusted,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.model import CausalAttention
from jaxkinetic.model.positions import require_alibi
from jaxkinetic.theories.coordinates import Coordinates, SeparateCoordinates
from jaxkinetic.theories.parameter import Parameter

Positions = Float[Array, " position"]
Values = Float[Array, " parameter"]
# Far closer to 0 than the curve's own positions a shape is cut: accuracy is far outside [0, 1] before that.
_LARGEST_EXPONENT = 300.0


class Theory(eqx.Module):
    """Parameters, and the shape s(sigma_0) of the profile that their values give.

    A curve is accuracy = c0 + c1 s with c0 and c1 >= 0 its own, so that the shape counts up to an offset and a
    positive factor. Numbers are traced; functions and names are static.
    """

    name: eqx.AbstractVar[str]
    parameters: eqx.AbstractVar[tuple[Parameter, ...]]

    @abc.abstractmethod
    def log_shape(self, values: Values, sources: Positions) -> tuple[Positions, Scalar]:
        """The shape at several positions as (s e^{-log_scale}, log_scale), so that it never overflows.

        Args:
            values: values of the parameters, in their order.
            sources: positions sigma_0 in (0, 1].
        """

    @property
    def coordinates(self) -> Coordinates:
        """Coordinates in which the parameters are searched."""
        return SeparateCoordinates(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(p.name for p in self.parameters)

    def scaled(self, values: Any) -> Any:
        """Coordinates of values, (..., P), each in its parameter's scale; NumPy or JAX."""
        columns = [p.scaled(values[..., k]) for k, p in enumerate(self.parameters)]
        return values.__array_namespace__().stack(columns, axis=-1)

    def unscaled(self, scaled: Any) -> Any:
        """Values at coordinates of `scaled`."""
        columns = [p.unscaled(scaled[..., k]) for k, p in enumerate(self.parameters)]
        return scaled.__array_namespace__().stack(columns, axis=-1)

    def in_order(
        self, values: Mapping[str, float] | Sequence[float] | np.ndarray, argument: str = "values"
    ) -> np.ndarray:
        """Values of the parameters in their order, from a table by name or a sequence, given as an argument.

        Raises:
            ValueError: if one is missing, or outside its range.
        """
        names = ", ".join(self.names)
        if isinstance(values, Mapping):
            if set(values) != set(self.names):
                raise ValueError(
                    f"Argument `{argument}` must name {names}, but names {', '.join(map(str, values))}."
                )
            values = [values[name] for name in self.names]
        found = as_numbers(argument, values)
        if found.shape != (len(self.parameters),):
            raise ValueError(f"Argument `{argument}` must hold each of {names}, but has shape {found.shape}.")
        for parameter, value in zip(self.parameters, found, strict=True):
            low, high = float(parameter.low), float(parameter.high)
            if not low <= value <= high:
                within = f"lie in the theory's range, {low:g} to {high:g}"
                raise ValueError(f"Argument `{parameter.name}` must {within}, but is {value}.")
        return found

    def quantities(self, values: np.ndarray) -> dict[str, float]:
        """Derived numbers worth telling at given values, by name."""
        del values
        return {}

    def __str__(self) -> str:
        return f"{self.name}(sigma_0; {', '.join(self.names)})" if self.names else f"{self.name}(sigma_0)"

    @trusted()
    def scaled_shape(
        self, values: Values, own: Positions, wanted: Float[Array, " wanted"] | None = None
    ) -> Float[Array, " wanted"]:
        """The shape at ``wanted`` positions in units of its largest value at a curve's own; there if None."""
        shape, log_scale = self.log_shape(values, own)
        log_scale = log_scale + _log_largest(shape)
        if wanted is not None:
            shape, at_wanted = self.log_shape(values, wanted)
            return shape * jnp.exp(jnp.minimum(at_wanted - log_scale, _LARGEST_EXPONENT))
        return shape * jnp.exp(-_log_largest(shape))

    def row_width(self, first: Any) -> Any:
        """Width of the scale of the second of two parameters in which its cells are even, beside a first, (R,).

        The rows of a posterior's grid may need finer cells than the prior's own scale has.
        """
        return np.full(np.shape(first), self.parameters[1].width)

    @property
    def widest(self) -> "Theory":
        """The theory over ranges that leave out no curve met so far; itself unless it knows of any."""
        return self

    @trusted()
    def row_shapes(
        self,
        first: Float[Array, " row"],
        second: Float[Array, "row column"],
        sources: Float[Array, "curve position"],
    ) -> Float[Array, "row column curve position"]:
        """`scaled_shape` of every curve on rows of equal first of two parameters, which may share their work.

        NaN where a way that shares it does not serve.
        """

        def one(a, b):
            return jax.vmap(lambda own: self.scaled_shape(jnp.stack([a, b]), own))(sources)

        return jax.lax.map(lambda row: jax.vmap(one, (None, 0))(*row), (first, second))


class FunctionTheory(Theory):
    """See `of_function`."""

    name: str = eqx.field(static=True)
    parameters: tuple[Parameter, ...]
    function: Callable[..., Any] = eqx.field(static=True)

    def log_shape(self, values: Values, sources: Positions) -> tuple[Positions, Scalar]:
        """The shape that the function gives."""
        shape = jnp.broadcast_to(jnp.asarray(self.function(sources, *values), sources.dtype), sources.shape)
        return shape, jnp.zeros((), sources.dtype)


class ModelTheory(Theory):
    """See `of_model`."""

    name: str = eqx.field(static=True)
    parameters: tuple[Parameter, ...]
    build: Callable[..., CausalAttention] = eqx.field(static=True)
    time: Scalar
    vocab_size: float = eqx.field(static=True)

    @trusted()
    def model(self, *values: Any) -> CausalAttention:
        """The model at given values, in the order of the parameters."""
        return self.build(*values)

    def log_shape(self, values: Values, sources: Positions) -> tuple[Positions, Scalar]:
        """The profile S_t of uniform prompts (1.21)."""
        model = self.model(*values)
        require_alibi(model.positions, "a theory's closed form", "Fit other weights by `fit_by_simulation`.")
        rates = model.kernel.growth_rates()
        rates = rates[: min(rates.shape[0], closed_form.growing_modes(self.vocab_size))]
        log_weights = closed_form.log_mode_weights(self.vocab_size, rates.shape[0])
        signed = model.kernel.has_signed_rates
        shape, scales = jax.vmap(
            lambda s: closed_form.scaled_profile(rates, log_weights, self.time, s, model.positions, signed)
        )(sources)
        log_scale = jax.lax.stop_gradient(jnp.max(scales))
        return shape * jnp.exp(scales - log_scale), log_scale


def of_function(
    function: Callable[..., Any], parameters: Sequence[Parameter] = (), *, name: str | None = None
) -> Theory:
    """A theory given by the shape of the curve.

    >>> import jax.numpy as jnp
    >>> import jaxkinetic as jk
    >>> rate = jk.theories.Parameter("rate", 0.1, 50.0, scale="log")
    >>> print(jk.theories.of_function(lambda sigma, rate: jnp.exp(-rate * sigma), [rate], name="decay"))
    decay(sigma_0; rate)

    Args:
        function: (sources, *values) -> shape, (S,); traceable by JAX. Only its form counts: every curve has an
            offset and a factor c1 >= 0 of its own.
        parameters: what the values are, in their order.
        name: what to call it; the function's name if None.
    """
    check_function("function", function)
    if name is not None:
        check_texts(name=name)
    parameters = _checked(parameters)
    theory = FunctionTheory(name or getattr(function, "__name__", "shape"), parameters, function)
    what = f"positions and values and return one number a position, for {len(parameters)} parameters"
    _try_out("function", what, theory.log_shape, _middle(theory), jnp.linspace(0.1, 0.9, 3))
    return theory


def of_model(
    build: Callable[..., CausalAttention],
    parameters: Sequence[Parameter],
    *,
    time: Any = 1.0,
    vocab_size: float = 8,
    name: str = "S_t",
) -> ModelTheory:
    """A theory given by a model of attention: the profile S_t of uniform prompts (1.21).

    It has a closed form for ALiBi weights, which is what curves are fitted with; `fit_by_simulation` takes any.

    Args:
        build: (*values) -> model, traceable. A kernel whose parameters are fitted needs its ``n_modes``.
        parameters: what the values are, in their order.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2 of the decoder; it need not be whole.
        name: what to call it.
    """
    check_function("build", build)
    check_texts(name=name)
    theory = ModelTheory(name, _checked(parameters), build, checked_depth(time, vocab_size), vocab_size)
    what = f"values and return a model, for {len(theory.parameters)} parameters"
    made = _try_out("build", what, theory.model, *_middle(theory))
    if not isinstance(made, CausalAttention):
        raise ValueError(f"Argument `build` must build a CausalAttention, but builds {type(made).__name__}.")
    return theory


def _middle(theory: Theory) -> Values:
    return jnp.asarray([float(p.value_at(np.asarray(0.5))) for p in theory.parameters], float)


def _try_out(argument: str, what: str, function: Callable[..., Any], *values: Any) -> Any:
    """Trace a user's function once: what it cannot do is told before a search begins."""
    try:
        return eqx.filter_eval_shape(function, *values)
    except TypeError as error:
        raise ValueError(f"Argument `{argument}` must take {what}, but: {error}.") from error


def checked_depth(time: Any, vocab_size: Any) -> Scalar:
    """Return a depth t > 0 as an array, beside a vocabulary of at least 2."""
    if as_numbers("vocab_size", vocab_size).ndim or not vocab_size >= 2:
        raise ValueError(f"Argument `vocab_size` must be a number of at least 2, but is {vocab_size}.")
    check_sensible(time=time, vocab_size=vocab_size)
    return as_float(check_positive_number("time", time))


def _checked(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    given = tuple(parameters) if isinstance(parameters, Iterable) else (parameters,)
    for p in given:
        if not isinstance(p, Parameter):
            raise ValueError(f"Argument `parameters` must hold Parameter, but holds {type(p).__name__}.")
    names = [p.name for p in given]
    if len(set(names)) < len(names):
        raise ValueError(f"Argument `parameters` must have different names, but has {', '.join(names)}.")
    return given


def _log_largest(values: Positions) -> Scalar:
    """Log of the largest value: it may be e^{-lam (1 - s)} of the scale taken out, and squares would vanish."""
    largest = jnp.max(jnp.abs(values), axis=-1)
    return jax.lax.stop_gradient(jnp.log(jnp.maximum(largest, jnp.finfo(values.dtype).tiny)))
