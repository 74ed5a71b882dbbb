"""The tables in scripts/README.md of fits to every published model and task, and of the evidence for the model.

python scripts/published_curves.py    # a minute
"""

import argparse

import jax

import jaxkinetic as jk
from jaxkinetic.inference.data.curves import by_model
from jaxkinetic.inference.posterior.curve_posterior import ALTERNATIVES


def interval(found: jk.CurveFit, name: str) -> str:
    """Interval of a parameter, with the word where it is open."""
    text = str(found.intervals[name])
    return text if found.identifiable[name] else f"unidentified, {text}"


def fits() -> None:
    """Print least-squares fits of every model and task as Markdown."""
    columns = (
        "model",
        "items",
        "beta",
        "lambda",
        "chi-squared / dof, p, AIC",
        "constant: p, AIC",
        "quadratic: p, AIC",
    )
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    for curves in by_model(jk.load_curves(task=None)):
        fit = jk.fit_curves(curves)
        items = ", ".join(str(curve.n_items) for curve in curves)
        found = " | ".join(f"{getattr(fit, name):.3g}, {interval(fit, name)}" for name in ("beta", "lam"))
        others = " | ".join(f"{a.p_value:.2g}, {a.aic:.1f}" for a in fit.alternatives)
        numbers = f"{fit.chi2:.1f} / {fit.dof}, {fit.p_value:.2g}, {fit.aic:.1f}"
        print(f"| {curves[0].name} | {items} | {found} | {numbers} | {others} |")


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
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    jax.config.update("jax_enable_x64", True)
    fits()
    print()
    posteriors(jk.list_models())


if __name__ == "__main__":
    main()
