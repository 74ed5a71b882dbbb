"""Which measured curves `jaxkinetic fit` and `posterior` take: options, and how curves are named in tables."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.common import option, pick
from jaxkinetic.cli.output import printable

if TYPE_CHECKING:
    from jaxkinetic import RetrievalCurve

_DEFAULT = ("MPT-30B-Instruct",)


@dataclasses.dataclass(frozen=True)
class Curves:
    """Measured curves: published ones, MPT-30B-Instruct unless you choose, or your own.

    A CSV has a header with columns sigma or position, accuracy, and optionally n_questions, n_items, model, task.
    All lengths of one model and task share beta and lam.
    """

    model: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, option("NAME", "Published model; may be repeated.")
    ] = ()
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Every published model.")] = False
    task: Annotated[
        Literal["multi-document-qa", "key-value-retrieval"] | None,
        option("{multi-document-qa,key-value-retrieval}", "Published curves of this task only."),
    ] = None
    csv: Annotated[tuple[Path, ...], option("FILE ...", "Your own curves.")] = ()
    n_items: Annotated[int | None, option("INT", "Items in the prompt, if the CSV has no such column.")] = None

    def groups(self) -> "list[list[RetrievalCurve]]":
        """Curves that are fitted together: those of one model and task.

        Raises:
            ValueError: on options that exclude one another, and as `load_curves` and `read_curves`.
        """
        from jaxkinetic import load_curves, read_curves
        from jaxkinetic.inference.data.curves import by_model

        if self.csv:
            if self.all or self.model or self.task:
                raise ValueError("Argument `csv` must stand alone, but `all`, `model` or `task` is given too.")
            return by_model(curve for path in self.csv for curve in read_curves(path, self.n_items))
        if self.n_items is not None:
            raise ValueError("Argument `n_items` must come with `csv`: published curves have theirs.")
        if self.all:
            if self.model:
                raise ValueError("Argument `all` must stand alone, but `model` is given too.")
            return by_model(load_curves(task=self.task))
        found = [c for name in self.model or _DEFAULT for c in load_curves(model=name, task=self.task)]
        # A model that is named twice counts once.
        return by_model({(c.name, c.task, c.n_items): c for c in found}.values())


CurveOptions = Annotated[Curves, tyro.conf.OmitArgPrefixes]


def title(curves: "list[RetrievalCurve]") -> str:
    """Models, task, number of points and lengths of curves that are fitted together."""
    names = " and ".join(dict.fromkeys(c.name or "curve" for c in curves))
    heading = ", ".join([names, *dict.fromkeys(c.task for c in curves if c.task)])
    lengths = ", ".join(dict.fromkeys(str(c.n_items) for c in curves if c.n_items))
    points = f"{sum(c.sources.size for c in curves)} points" + (f", {lengths} items" if lengths else "")
    return f"{printable(heading)}: {points}"


def p_text(p_value: float) -> str:
    """A p-value, or that it is not known."""
    return "p unknown" if math.isnan(p_value) else f"p = {p_value:.3g}"


def fit_record(f: Any, theory: str, level: float, ends: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What fit.json holds of every fit, by least squares or through the simulator.

    Args:
        f: the fit.
        theory: what was fitted, in words.
        level: coverage of the intervals.
        ends: of each parameter, the "low" and "high" end of its interval, and which the range sets ("low_open",
            "high_open").
    """
    parameters = {
        name: {"value": float(getattr(f, name))} | interval | {"identifiable": f.identifiable[name]}
        for name, interval in ends.items()
    }
    curves = [curve_record(c, fitted=f.predict(c)) for c in f.curves]
    return {"theory": theory, "parameters": parameters, "level": level, "curves": curves} | pick(
        f, "chi2", "dof", "p_value"
    )


def curve_record(curve: "RetrievalCurve", **more: Any) -> dict[str, Any]:
    """A measured curve for machines, and what was found for it."""
    names = ("name", "task", "n_items", "origin", "sources", "accuracy", "standard_error")
    return pick(curve, *names) | more
