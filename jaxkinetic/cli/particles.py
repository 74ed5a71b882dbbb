"""`jaxkinetic simulate` and `jaxkinetic figures`: prompts on the circle, and the paper's figures."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxkinetic.cli.common import (
    Beta,
    JsonFile,
    Lam,
    OutFolder,
    check_folder,
    check_outputs,
    configure,
    save,
    say,
    write_json,
)


def simulate(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    n_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens N.")] = 64,
    times: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T ...", help="Saved depths.")] = (
        0.0,
        1.0,
        3.0,
        10.0,
    ),
    prompts: Annotated[
        Literal["clusters", "uniform"], tyro.conf.arg(help="Four clusters as in Figure 3, or uniform angles.")
    ] = "clusters",
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt.")] = 0,
    progress: Annotated[bool, tyro.conf.arg(help="Show a progress bar.")] = False,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Move one prompt of N tokens through depth by (1.1) and draw it on the circle."""
    check_outputs(out, json)
    configure()
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting
    from jaxkinetic._types import check_seed

    check_seed(seed)
    model = jk.CausalAttention(jk.ExpCosine(beta), jk.ALiBi(lam))
    theta0 = (four_clusters() if prompts == "clusters" else jk.UniformPrompts()).sample(
        jax.random.key(seed), n_tokens
    )
    saved = sorted({0.0, *times})
    trajectory = jk.simulate(model, theta0, saved, jk.Solve(progress=progress))
    say(str(trajectory), json)
    save(plotting.plot_snapshots(trajectory), out / "simulate.png", json)
    parameters = {"beta": beta, "lam": lam, "n_tokens": n_tokens, "prompts": prompts, "seed": seed}
    write_json({**parameters, "times": trajectory.ts.tolist(), "angles": trajectory.angles.tolist()}, json)


def figures(
    out: OutFolder = Path("jaxkinetic-results"),
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt of Figure 3.")] = 0,
) -> None:
    """Draw the paper's figures: 1 (measured), 2 (profiles at several depths), 3 (tokens on the circle)."""
    check_folder(out)
    configure()
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting

    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    save(plotting.plot_measured(), out / "figure1.png", None)
    save(plotting.plot_profiles(model, (0.25, 0.5, 1.0, 1.5, 2.0, 2.4), vocab_size=8), out / "figure2.png", None)
    trajectory = jk.simulate(model, four_clusters().sample(jax.random.key(seed), 64), [0.0, 1.0, 3.0, 10.0])
    save(plotting.plot_snapshots(trajectory), out / "figure3.png", None)


def four_clusters() -> Any:
    """Prompts of Figure 3: four stretches near four directions."""
    from jaxkinetic import ClusterPrompts

    return ClusterPrompts(centers=[0.5, 2.2, 3.6, 5.2], width=0.12)
