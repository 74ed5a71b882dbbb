"""Problems with exact answers, and the paper's formulas at forty digits.

Nothing here imports jaxkinetic: these are the other side of every comparison.
"""

from dataclasses import dataclass

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

DIGITS = 40

Doubles = NDArray[np.float64]


# Prompts whose angles are known at every time -------------------------------------------------------


@dataclass(frozen=True)
class AngleProblem:
    """A prompt under w = 2 c cos(theta) in which only the last token moves, by d' = -rate sin(d).

    Attributes:
        name: what happens, for test ids.
        coefficient: c = w^(1), of any sign.
        lam: positional bias.
        rest: angles of all tokens but the last.
        distance: d(0), from the first token to the last.
        rate: of the relaxation, negative where the last token is repelled.
    """

    name: str
    coefficient: float
    lam: float
    rest: tuple[float, ...]
    distance: float
    rate: float

    @property
    def start(self) -> Doubles:
        """theta_j(0)."""
        return np.array([*self.rest, self.rest[0] + self.distance])

    def angles(self, time: float) -> Doubles:
        """theta_j(t): tan(d / 2) decays exponentially."""
        return np.array([*self.rest, self.rest[0] + self._distance(time)])

    def slope(self, time: float) -> float:
        """d theta_N(t) / d theta_N(0) = sin(d(t)) / sin(d(0))."""
        return float(np.sin(self._distance(time)) / np.sin(self.distance))

    def _distance(self, time: float) -> float:
        return float(2 * np.arctan(np.tan(self.distance / 2) * np.exp(-self.rate * time)))


ANGLE_PROBLEMS = (
    AngleProblem("two tokens attract", 0.6, 1.0, (0.3,), 2.0, 1.2),
    AngleProblem("two tokens repel", -0.6, 1.0, (0.3,), 0.4, -1.2),
    # All earlier tokens coincide, and so stay; the weights sum to one whatever lam.
    AngleProblem("the last of five meets a cluster", 0.5, -3.0, (1.0,) * 4, -1.5, 1.0),
    # Opposite tokens balance, except for omega_32 - omega_31 = tanh(lam / 6).
    AngleProblem("opposite tokens, recency wins", 0.5, 4.0, (0.0, np.pi), 1.0, -float(np.tanh(4 / 6))),
    AngleProblem("opposite tokens, primacy wins", 0.5, -4.0, (0.0, np.pi), 1.0, float(np.tanh(4 / 6))),
    AngleProblem("opposite tokens, no bias", 0.5, 0.0, (0.0, np.pi), 1.0, 0.0),
)


# The closed form at forty digits --------------------------------------------------------------------


def mp_graphon(lam, sigma, source):
    """k(sigma, sigma') of (1.9)."""
    if lam == 0:
        return 1 / mp.mpf(sigma)
    return lam * mp.exp(-lam * (sigma - source)) / (1 - mp.exp(-lam * sigma))


def mp_variable(lam, sigma, source):
    """Y(sigma; sigma_0) of (1.24)."""
    if lam == 0:
        return mp.log(mp.mpf(sigma) / source)
    return mp.log(mp.expm1(lam * sigma) / mp.expm1(lam * source))


def mp_entire_bessel(order, z):
    """0F1(; m + 1; z) / m!, through Bessel functions away from zero."""
    z = mp.mpf(z)
    if abs(z) < 1:
        return mp.hyp0f1(order + 1, z) / mp.factorial(order)
    if z > 0:
        return mp.besseli(order, 2 * mp.sqrt(z)) / mp.sqrt(z) ** order
    return mp.besselj(order, 2 * mp.sqrt(-z)) / mp.sqrt(-z) ** order


def mp_profile(rate, time, lam, sigma, source):
    """g_a(t, sigma; sigma_0) of (1.23) and (1.25)."""
    c = rate * time
    return mp_graphon(lam, sigma, source) * c * mp_entire_bessel(1, c * mp_variable(lam, sigma, source))


class MpProfile:
    """S_t(sigma_0) of (1.21) for the exponential-cosine kernel, and its derivatives, at forty digits."""

    def __init__(self, beta, lam, vocab_size: int, n_modes: int | None = None):
        self.lam = mp.mpf(lam)
        ns = range(1, (n_modes or int(np.ceil(4 * vocab_size))) + 1)
        beta = mp.mpf(beta)
        bessel = [mp.besseli(n, beta) for n in (*ns, len(ns) + 1)]
        self.rates = [n**2 * bessel[n - 1] for n in ns]
        # I_n' = I_{n+1} + n I_n / beta
        self.rate_slopes = [n**2 * (bessel[n] + n * bessel[n - 1] / beta) for n in ns]
        self.weights = [mp.exp(-((mp.pi * n / vocab_size) ** 2) / 2) for n in ns]

    def _sums(self, time, y):
        """sum_n w_n psi_n with its derivatives in t, y and beta; psi = c Phi_1(c y), (z Phi_1)' = Phi_0."""
        value = in_time = in_y = in_beta = mp.mpf(0)
        for a, da, w in zip(self.rates, self.rate_slopes, self.weights, strict=True):
            c = a * time
            phi0, phi1, phi2 = (mp_entire_bessel(m, c * y) for m in range(3))
            value += w * c * phi1
            in_y += w * c**2 * phi2
            in_time += w * a * phi0
            in_beta += w * da * time * phi0
        return value, in_time, in_y, in_beta

    def __call__(self, time, source):
        return self.value_and_slopes(time, source)["value"]

    def value_and_slopes(self, time, source):
        """Value and derivatives in beta, lam, time and source."""
        time, source, lam = mp.mpf(time), mp.mpf(source), self.lam
        k, y = mp_graphon(lam, 1, source), mp_variable(lam, 1, source)
        if lam == 0:
            k_lam, y_lam, y_source, k_source = source - mp.mpf(1) / 2, (1 - source) / 2, -1 / source, mp.mpf(0)
        else:
            # 1 / lam - 1 / (e^lam - 1) needs its digits where lam is tiny.
            with mp.workdps(3 * DIGITS):
                k_lam = k * (1 / lam - (1 - source) - 1 / mp.expm1(lam))
                rise = lambda s: s * mp.exp(lam * s) / mp.expm1(lam * s)  # noqa: E731
                y_lam = rise(mp.mpf(1)) - rise(source)
            y_source = -lam * mp.exp(lam * source) / mp.expm1(lam * source)
            k_source = lam * k
        value, in_time, in_y, in_beta = self._sums(time, y)
        return {
            "value": k * value,
            "beta": k * in_beta,
            "lam": k_lam * value + k * in_y * y_lam,
            "time": k * in_time,
            "source": k_source * value + k * in_y * y_source,
        }
