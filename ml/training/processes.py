"""Processes of one training that torchrun or srun started, on one machine or several.

Each runs the same command. The first makes the stage; the others, the followers, train along with
it and write nothing but their own folder of unfinished work.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments import ClusterEnvironment

_OWN_FOLDER = "process-"
_LONGEST_STAGE = timedelta(days=30)
_together: list[Any] = []
"""The group of all processes after the training, until the first has written its results."""


class TrainedAlong(Exception):
    """A follower has nothing left to do; the first process writes the results."""


@dataclass(frozen=True)
class Launch:
    """The processes that a launcher started for one training.

    Attributes:
        launcher: its name.
        rank: number of this process.
        world_size: number of processes.
        local_size: how many of them are on this machine, as on every other.
    """

    launcher: Literal["torchrun", "srun"]
    rank: int
    world_size: int
    local_size: int

    def __post_init__(self) -> None:
        """Compare machines."""
        if self.world_size % self.local_size:
            raise ValueError(
                f"{self.launcher}: {self.world_size} processes, {self.local_size} of them on this "
                "machine; start the same number on each"
            )

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_size

    def environment(self) -> ClusterEnvironment:
        """Return what Lightning asks for rank and address."""
        from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

        if self.launcher == "torchrun":
            return TorchElasticEnvironment()
        # It would put the job back into the queue by itself.
        return SLURMEnvironment(auto_requeue=False)


def launched() -> Launch | None:
    """Return the launched processes, None if this one is alone.

    torchrun comes first, for srun may start it. An allocation of SLURM alone starts nothing: only
    srun sets the number of tasks of a step.

    Raises:
        ValueError: the machines have different numbers of processes.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        sizes = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
        launch = Launch("torchrun", int(env["RANK"]), *sizes)
    elif "SLURM_STEP_NUM_TASKS" in env:
        total = int(env["SLURM_STEP_NUM_TASKS"])
        nodes = int(env.get("SLURM_STEP_NUM_NODES", 1))
        launch = Launch("srun", int(env["SLURM_PROCID"]), total, max(total // nodes, 1))
    else:
        return None
    return launch if launch.world_size > 1 else None


def own_folder(work: Path) -> Path:
    """Return where this process keeps unfinished work that it alone reads and writes.

    Args:
        work: the stage's folder of unfinished work.

    Returns:
        The same folder, or one in it for a follower; made if missing.
    """
    launch = launched()
    if launch is None or launch.rank == 0:
        return work
    path = work / f"{_OWN_FOLDER}{launch.rank}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def in_all_folders(path: Path) -> list[Path]:
    """Return a file of this process and those of the same name of all followers.

    Args:
        path: a file in the folder of the first process.
    """
    return [path, *sorted(path.parent.glob(f"{_OWN_FOLDER}*/{path.name}"))]


def leave_to_first() -> None:
    """End here in a follower: what comes next is written by the first process.

    Raises:
        TrainedAlong: this is a follower.
    """
    launch = launched()
    if launch is not None and launch.rank:
        raise TrainedAlong


def await_first() -> None:
    """In a follower, wait until the first process has written its results; call it in all.

    A follower that ended earlier would end the job under some launchers, and would not notice that
    the first process fails.

    Raises:
        TrainedAlong: this is a follower, and the results are written.
        RuntimeError: this is a follower, and the first process ended without results.
    """
    if launched() is None:
        return
    import torch.distributed as dist

    # Not the training's: that of CUDA would keep a device busy, and neither waits for so long.
    _together[:] = [dist.new_group(backend="gloo", timeout=_LONGEST_STAGE)]
    if dist.get_rank():
        try:
            dist.barrier(_together.pop())
        except RuntimeError as error:
            raise RuntimeError(
                "the first process ended before it had written the training's results"
            ) from error
    leave_to_first()


def release_followers() -> None:
    """In the first process, let the followers end."""
    if _together:
        import torch.distributed as dist

        # The results are written; that a follower was lost meanwhile does not matter.
        with suppress(RuntimeError):
            dist.barrier(_together.pop())
