"""The README's table of fits to every published model.

python scripts/published_curves.py    # under a minute
"""

import jax

import jaxkinetic as jk


def interval(fit: jk.CurveFit, name: str) -> str:
    """Interval of a parameter, with the word where it is open."""
    text = str(fit.intervals[name])
    return text if fit.identifiable[name] else f"unidentified, {text}"


def main() -> None:
    """Print the table as Markdown."""
    jax.config.update("jax_enable_x64", True)
    print("| model | items | beta | lambda | chi-squared / dof | p | AIC | AIC, constant | AIC, quadratic |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in jk.list_models():
        fit = jk.fit_curves(jk.load_curves(model=name))
        items = ", ".join(str(curve.n_items) for curve in fit.curves)
        aics = " | ".join(f"{aic:.1f}" for aic in (fit.aic, *(a.aic for a in fit.alternatives)))
        numbers = f"{fit.chi2:.1f} / {fit.dof} | {fit.p_value:.2g} | {aics}"
        print(f"| {name} | {items} | {interval(fit, 'beta')} | {interval(fit, 'lam')} | {numbers} |")


if __name__ == "__main__":
    main()
