"""`jaxkinetic limit`: the mean field and the correlations of any prompt law."""

from json import dumps as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import option
from jaxkinetic.cli.law_file import Beta, ConfigFile, Lam, LawName, law_option, settle
from jaxkinetic.law_table import build_law

if TYPE_CHECKING:
    from jaxkinetic import Correlations

_DEFAULTS: dict[str, Any] = {
    "beta": 1.0,
    "lam": 1.0,
    "times": (0.0, 0.5, 1.0, 1.5),
    "sources": (0.1, 0.3, 0.7),
    "observable_mode": 1,
    "law": "smooth",
    "tolerance": None,
}


@command("limit.png")
def limit(
    beta: Beta = None,
    lam: Lam = None,
    times: Annotated[tuple[float, ...] | None, option("T ...", "Depths, increasing.", "0 0.5 1 1.5")] = None,
    sources: Annotated[
        tuple[float, ...] | None, option("S ...", "Source positions sigma_0 in (0, 1).", "0.1 0.3 0.7")
    ] = None,
    observable_mode: Annotated[
        int | None, option("INT", "m of the observable e^{i m theta} of the source's initial angle.", "1")
    ] = None,
    law: Annotated[LawName | None, law_option("smooth")] = None,
    config: ConfigFile = None,
    tolerance: Annotated[
        float | None,
        option("FLOAT", "Largest tail of an expansion that counts as resolved, relative to the solution.", "1e-11"),
    ] = None,
    n_sigma: Annotated[int, tyro.conf.arg(help="Positions sigma = j / n in the arrays.")] = 100,
    n_theta: Annotated[int, tyro.conf.arg(help="Angles in the array of the density.")] = 120,
    n_modes: Annotated[int, tyro.conf.arg(help="Fourier modes n = 1..K in the arrays of correlations.")] = 8,
    npz: Annotated[
        Path | None, option("FILE", "Also write the arrays for NumPy; correlations as complex numbers.")
    ] = None,
) -> Results:
    """Solve the limit of infinitely many tokens, mean field (1.10) and correlations (1.17), (1.18), and draw it.

    Draws f on discs, with theta as the angle and sigma as the radius, and the cross-correlation (limit.png).

    The prompt law has a name (--law) or comes from a TOML file (--config), which may hold other settings too; flags
    override it. A density is f_o = 1 plus a sum of waves, cos(sigma) cos(n theta - turn sigma) + sin(sigma)
    sin(n theta - turn sigma), where `cos` and `sin` list the coefficients of 1, sigma, sigma^2, ... This file gives
    the law named smooth:

        beta = 1.0
        lam = 1.0
        times = [0, 0.5, 1, 1.5]
        sources = [0.1, 0.3, 0.7]
        observable_mode = 1
        [law]
        waves = [{ n = 1, cos = [0.6], turn = 2 }, { n = 2, sin = [0, 0.2] }]

    Codewords have a row of coefficients for each probability p_m(sigma). This file gives the law named codewords:

        [law]
        probabilities = [[0.4, -0.2], [0.3], [0.2, -0.1], [0.1, 0.3]]

    --json and --npz write arrays with axes (time, sigma, theta) for the `density` of a smooth law, (time, sigma, m)
    for the angles that codewords have reached (`characteristics`), (sigma, m) for their `weights`, (time, source,
    sigma, n) for the modes of the `cross`-correlation and (time, source, n) for those of the `auto`correlation.
    """
    settings = settle(locals(), config, _DEFAULTS)
    for name, size in (("n_sigma", n_sigma), ("n_theta", n_theta), ("n_modes", n_modes)):
        if size < 1:
            raise ValueError(f"Argument `{name}` must be at least 1, but is {size}.")
    import numpy as np

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, plotting, solve_correlations

    model = CausalAttention(ExpCosine(settings["beta"]), ALiBi(settings["lam"]))
    found = solve_correlations(
        model, build_law(settings["law"]), settings["times"], np.asarray(settings["sources"]),
        observable_mode=settings["observable_mode"], tolerance=settings["tolerance"],
    )  # fmt: skip
    arrays = _arrays(found, n_sigma, n_theta, n_modes)
    parameters = {name: settings[name] for name in ("beta", "lam", "observable_mode", "law")}
    files: dict[Any, Any] = {"limit.png": lambda: plotting.plot_limit(found)}
    if npz is not None:
        law_text = {"law": to_json(parameters["law"])}
        files[npz.absolute()] = lambda file: np.savez(file, **(parameters | law_text), **arrays)
    return Results(_table(found, settings["observable_mode"]), parameters | _real(arrays), files)


def _arrays(found: "Correlations", n_sigma: int, n_theta: int, n_modes: int) -> dict[str, Any]:
    import jax.numpy as jnp
    import numpy as np

    field, sigma = found.field, np.arange(1, n_sigma + 1) / n_sigma
    if field.is_atomic:
        state = {
            "labels": field.labels,
            "characteristics": jnp.stack([field.characteristics(t, sigma) for t in field.ts]),
            "weights": field.weights(sigma),
        }
    else:
        theta = 2 * np.pi * jnp.arange(n_theta) / n_theta
        state = {"theta": theta, "density": jnp.stack([field.density(t, sigma, theta) for t in field.ts])}
    correlations = {
        "cross": jnp.stack([found.cross(t, sigma, n_modes) for t in found.ts]),
        "auto": jnp.stack([found.auto(t, n_modes) for t in found.ts]),
    }
    arrays = {"times": found.ts, "sources": found.sources, "sigma": sigma} | state | correlations
    return {name: np.asarray(value) for name, value in arrays.items()}


def _real(arrays: dict[str, Any]) -> dict[str, Any]:
    """Lists for JSON, which has no complex numbers."""
    record = {}
    for name, value in arrays.items():
        parts = {"_real": value.real, "_imag": value.imag} if value.dtype.kind == "c" else {"": value}
        record |= {name + suffix: part.tolist() for suffix, part in parts.items()}
    return record


def _table(found: "Correlations", m: int) -> str:
    import numpy as np

    rows = [
        f"N times the covariance of e^{{-i {abs(m)} theta}} at the last token and e^{{i {m} theta}} at the source"
    ]
    rows.append("  t        " + "".join(f"sigma_0 = {s:<14.4g}" for s in np.asarray(found.sources)))
    for t in found.ts:
        cross = np.asarray(found.cross(t, 1.0, abs(m)))[:, -1]
        rows.append(f"  {t:<9.4g}" + "".join(f"{c.real:<+11.6f}{c.imag:<+11.6f}i ".ljust(24) for c in cross))
    return "\n".join(rows)
