"""The work of the toy pipeline: what its workers import, without an orchestrator."""

import os
import time

import pandas as pd

from ml.records.atomic import atomic_write, temporary_path, write_json
from ml.records.config import StageConfig
from ml.records.ids import sample_rng
from ml.records.report import StageReport


class NumbersConfig(StageConfig):
    """How many numbers."""

    count: int = 4
    """Numbers in a shard."""
    seconds: float = 0.0
    """How long a shard takes."""


class SquaresConfig(StageConfig):
    """What is done to the numbers."""

    power: int = 2
    """The exponent."""


def read(ws, stage, shards):
    frames = []
    for shard in shards:
        frame = pd.read_parquet(ws.table_path(stage, shard))
        frames.append(frame.assign(shard=shard, row=range(len(frame))))
    return pd.concat(frames, ignore_index=True)


def write(ws, stage, shard, frame):
    with atomic_write(ws.table_path(stage, shard)) as path:
        frame.to_parquet(path)
    # Which processes made what, outside of the data.
    with (ws.root / "made.log").open("a") as log:
        log.write(f"{stage} {shard} {os.getpid()}\n")


def make_numbers(ws, config, shard):
    """Random numbers."""
    if config.seconds:
        with (ws.root / "started.log").open("a") as log:
            log.write(f"{shard} {os.getpid()}\n")
    time.sleep(config.seconds)
    if (ws.root / f"kill-{shard}").exists():
        (ws.root / f"kill-{shard}").unlink()
        # In the middle of a write.
        ws.stage_dir("numbers").mkdir(parents=True, exist_ok=True)
        temporary_path(ws.table_path("numbers", shard)).write_bytes(b"half")
        os.kill(os.getpid(), 9)
    if (ws.root / f"fail-{shard}").exists():
        raise ValueError(f"{shard} cannot be made")
    values = sample_rng(ws.seed, "numbers", shard).integers(0, 100, config.count)
    write(ws, "numbers", shard, pd.DataFrame({"value": values}))
    return StageReport(config.count, config.count, metadata={"largest": int(values.max())})


def make_squares(ws, config, shard):
    """Their powers."""
    frame = read(ws, "numbers", [shard])
    write(ws, "squares", shard, pd.DataFrame({"value": frame["value"] ** config.power}))
    return StageReport(len(frame), len(frame))


def make_halves(ws, config, shard):
    """Halve each number, for a total that is made in steps."""
    frame = read(ws, "squares", [shard])
    write(ws, "halves", shard, pd.DataFrame({"value": frame["value"] / 2}))
    target = ws.stage_dir("total") / "halves" / f"{shard}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    ws.table_path("halves", shard).rename(target)
    return StageReport(len(frame), len(frame))


def make_total(ws, config):
    """Their sum."""
    frame = read(ws, "squares", ws.shards)
    write_json(
        ws.stage_dir("total") / "metrics.json", {"total": int(frame["value"].sum()) + config.offset}
    )
    with (ws.root / "made.log").open("a") as log:
        log.write(f"total stage {os.getpid()}\n")
    return StageReport(len(frame), len(frame), tables={"sum": frame.groupby("shard").sum()})
