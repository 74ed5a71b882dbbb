"""The likelihood of measured curves by another road: scipy's Bessel functions, bounded least squares, simplices.

Nothing here imports jaxkinetic.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Doubles = NDArray[np.float64]
N_MODES = 60


@dataclass(frozen=True)
class Points:
    """One measured curve: positions, accuracies, standard errors."""

    sources: Doubles
    accuracy: Doubles
    error: Doubles


def shape(sources: Doubles, beta: float, lam: float, time: float = 1.0, vocab_size: float = 8) -> Doubles:
    """S_t(sigma_0) of (1.21), divided by a constant e^{2 sqrt(c Y)} of the largest exponent among the sources."""
    n = np.arange(1, N_MODES + 1)
    c = time * n**2 * special.iv(n, beta)
    sources = np.asarray(sources, float)[:, None]
    if lam == 0:
        y, kernel = -np.log(sources), 1.0
    else:
        y = np.log(np.expm1(lam) / np.expm1(lam * sources))
        kernel = lam * np.exp(-lam * (1 - sources)) / -np.expm1(-lam)
    x = 2 * np.sqrt(c * y)
    waves = c * 2 * np.where(x > 0, special.ive(1, x) / np.where(x > 0, x, 1), 0.5)
    weights = np.exp(-((np.pi * n / vocab_size) ** 2) / 2)
    return np.sum(kernel * weights * waves * np.exp(x - x.max()), axis=1)


def line(points: Points, values: Doubles) -> tuple[float, float, float]:
    """Best c0, c1 >= 0 by bounded least squares, and the chi-squared they leave."""
    size = values.max() - values.min()
    basis = np.stack([np.ones_like(values), values / size], axis=1) / points.error[:, None]
    found = optimize.lsq_linear(basis, points.accuracy / points.error, ([-np.inf, 0], np.inf), method="bvls")
    return float(found.x[0]), float(found.x[1] / size), float(2 * found.cost)


def chi2(curves: Sequence[Points], beta: float, lam: float, time: float = 1.0, vocab_size: int = 8) -> float:
    """Chi-squared of all curves with their lines at their best."""
    return sum(line(p, shape(p.sources, beta, lam, time, vocab_size))[2] for p in curves)


def quick_chi2(curves: Sequence[Points], beta: float, lam: float) -> float:
    """The same through the normal equations, for searches."""
    total = 0.0
    for p in curves:
        values, w = shape(p.sources, beta, lam), p.error**-2
        s, a = values - np.average(values, weights=w), p.accuracy - np.average(p.accuracy, weights=w)
        total += np.sum(w * a**2) - max(np.sum(w * s * a), 0) ** 2 / np.sum(w * s**2)
    return total


def simplex(
    function: Callable[[Doubles], float], starts: Sequence[Sequence[float]], bounds: Sequence[tuple[float, float]]
) -> tuple[Doubles, float]:
    """Lowest point that bounded Nelder-Mead reaches from any start, each restarted at its end."""
    best, lowest = np.asarray(starts[0]), math.inf
    options = {"xatol": 1e-11, "fatol": 1e-11, "maxfev": 2000}
    for start in starts:
        point = np.asarray(start, float)
        once = optimize.minimize(function, point, method="Nelder-Mead", bounds=bounds, options=options)
        found = optimize.minimize(function, once.x, method="Nelder-Mead", bounds=bounds, options=options)
        if found.fun < lowest:
            best, lowest = found.x, float(found.fun)
    return best, lowest
