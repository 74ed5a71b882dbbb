"""Several processes or hosts; the only place that starts `jax.distributed`."""

import dataclasses
import os
import sys
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Share the prompts among processes on one or several hosts; each runs the same command."""

    distributed: Annotated[
        bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Started by Slurm (srun) or Open MPI (mpirun).")
    ] = False
    coordinator: Annotated[
        str | None,
        tyro.conf.arg(metavar="HOST:PORT", help="Where process 0 listens, if no cluster says so."),
    ] = None
    num_processes: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Number of processes; with --coordinator.")
    ] = None
    process_id: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="This process, from 0; with --coordinator.")
    ] = None


SeveralHosts = Annotated[Hosts, tyro.conf.OmitArgPrefixes]


def check_hosts(hosts: Hosts) -> None:
    """Raise ValueError unless the flags name one process of a group, or none."""
    if (hosts.coordinator, hosts.num_processes, hosts.process_id) == (None, None, None):
        return
    if None in (hosts.coordinator, hosts.num_processes, hosts.process_id):
        raise ValueError(
            "Arguments `coordinator`, `num_processes` and `process_id` must be given together, or none of them: "
            "Slurm and Open MPI need `distributed` only."
        )
    assert hosts.coordinator is not None
    assert hosts.num_processes is not None
    assert hosts.process_id is not None
    if not hosts.coordinator.rpartition(":")[2].isdigit() or not hosts.coordinator.rpartition(":")[0]:
        raise ValueError(f"Argument `coordinator` must be HOST:PORT, but is {hosts.coordinator}.")
    if not 0 <= hosts.process_id < hosts.num_processes:
        raise ValueError(
            f"Argument `process_id` must lie in [0, {hosts.num_processes}), but is {hosts.process_id}."
        )


def start(hosts: Hosts) -> bool:
    """Join the other processes, if there are any; return whether this one writes and prints."""
    import jax

    check_hosts(hosts)
    if hosts.distributed or hosts.coordinator is not None:
        _keep_standard_output()
    try:
        if hosts.coordinator is not None:
            jax.distributed.initialize(hosts.coordinator, hosts.num_processes, hosts.process_id)
        elif hosts.distributed:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The processes did not find one another: {str(error).splitlines()[0]}") from error
    return jax.process_index() == 0


def _keep_standard_output() -> None:
    """Send to standard error what the transport between processes writes to standard output, past Python."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w")
