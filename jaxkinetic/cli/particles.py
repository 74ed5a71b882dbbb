"""`jaxkinetic simulate` and `jaxkinetic figures`: prompts on the circle, and the paper's figures."""

from typing import Annotated, Any, Literal

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Beta, Lam


@command("simulate.png")
def simulate(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    n_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens N.")] = 64,
    times: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T ...", help="Depths to save, besides 0.")] = (
        0.0,
        1.0,
        3.0,
        10.0,
    ),
    prompts: Annotated[
        Literal["clusters", "uniform"], tyro.conf.arg(help="Four clusters as in Figure 3, or uniform angles.")
    ] = "clusters",
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt.")] = 0,
    progress: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Show a progress bar.")] = False,
) -> Results:
    """Move one prompt of N tokens through depth by (1.1) and draw it on the circle (simulate.png)."""
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting
    from jaxkinetic._types import check_seed

    check_seed(seed)
    model = jk.CausalAttention(jk.ExpCosine(beta), jk.ALiBi(lam))
    law = four_clusters() if prompts == "clusters" else jk.UniformPrompts()
    theta0 = law.sample(jax.random.key(seed), n_tokens)
    trajectory = jk.simulate(model, theta0, sorted({0.0, *times}), jk.Solve(progress=progress))
    settings = {"beta": beta, "lam": lam, "n_tokens": n_tokens, "prompts": prompts, "seed": seed}
    found = {"times": trajectory.ts, "angles": trajectory.angles}
    return Results(str(trajectory), settings | found, {"simulate.png": lambda: plotting.plot_snapshots(trajectory)})


@command("figure1.png", "figure2.png", "figure3.png")
def figures(seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt of Figure 3.")] = 0) -> Results:
    """Draw the paper's figures: 1 (measured), 2 (profiles at several depths), 3 (tokens on the circle)."""
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting
    from jaxkinetic._types import check_seed

    check_seed(seed)
    model, depths = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0)), (0.25, 0.5, 1.0, 1.5, 2.0, 2.4)
    trajectory = jk.simulate(model, four_clusters().sample(jax.random.key(seed), 64), [0.0, 1.0, 3.0, 10.0])
    drawings = {
        "figure1.png": plotting.plot_measured,
        "figure2.png": lambda: plotting.plot_profiles(model, depths, vocab_size=8),
        "figure3.png": lambda: plotting.plot_snapshots(trajectory),
    }
    return Results("", {"seed": seed, "times": trajectory.ts, "angles": trajectory.angles}, drawings)


def four_clusters() -> Any:
    """Prompts of Figure 3: four stretches near four directions."""
    from jaxkinetic import ClusterPrompts

    return ClusterPrompts(centers=[0.5, 2.2, 3.6, 5.2], width=0.12)
