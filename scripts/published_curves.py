"""The README's tables of fits to every published model, and of the evidence for the model.

python scripts/published_curves.py    # a minute
"""

import jax

import jaxkinetic as jk
from jaxkinetic.inference.posterior import ALTERNATIVES


def interval(found: jk.CurveFit, name: str) -> str:
    """Interval of a parameter, with the word where it is open."""
    text = str(found.intervals[name])
    return text if found.identifiable[name] else f"unidentified, {text}"


def fits(names: list[str]) -> None:
    """Print least-squares fits as Markdown."""
    print("| model | items | beta | lambda | chi-squared / dof | p | AIC | AIC, constant | AIC, quadratic |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        fit = jk.fit_curves(jk.load_curves(model=name))
        items = ", ".join(str(curve.n_items) for curve in fit.curves)
        aics = " | ".join(f"{aic:.1f}" for aic in (fit.aic, *(a.aic for a in fit.alternatives)))
        numbers = f"{fit.chi2:.1f} / {fit.dof} | {fit.p_value:.2g} | {aics}"
        print(f"| {name} | {items} | {interval(fit, 'beta')} | {interval(fit, 'lam')} | {numbers} |")


def posteriors(names: list[str]) -> None:
    """Print posteriors, and the log evidence for the model against the alternatives, as Markdown."""
    print("| model | beta | lambda |", " | ".join(f"against {name}" for name in ALTERNATIVES), "|")
    print("|---|---|---|---|---|---|")
    for name in names:
        found = jk.curve_posterior(jk.load_curves(model=name))
        gains = " | ".join(f"{found.log_evidence - z:+.1f}" for z in found.log_evidence_of.values())
        print(f"| {name} | {found.describe('beta')} | {found.describe('lam')} | {gains} |")


def main() -> None:
    """Print both tables."""
    jax.config.update("jax_enable_x64", True)
    fits(jk.list_models())
    print()
    posteriors(jk.list_models())


if __name__ == "__main__":
    main()
