"""`vggheads generate`: images of many people with ground truth, without the rest of the chain.

Images go to a separate folder, which later runs may extend: finished shards are reused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dagster_project.engine import ShardTask, make_shards
from dagster_project.local_workers import open_local
from dagster_project.markers import Marker, complete, read_marker, unit_files, write_marker
from dagster_project.pipeline import Pipeline
from dagster_project.placement import WorkerConfig
from ml.captions.config import CaptionsConfig
from ml.flame.head_model import HeadModel
from ml.generation.config import ImagesConfig
from ml.inference.loading import load_detector
from ml.poses.config import PosesConfig
from ml.records.atomic import PREFIX, remove_temporaries, write_text
from ml.records.config import StageConfig, overlay, parse_yaml, read_config
from ml.records.ids import shard_name
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.stages import benchmark, captions, head_model, images, poses
from ml.stages.head_model import HeadModelConfig

C = TypeVar("C", bound=StageConfig)
SHARD_SIZE = 100
"""Images in a shard; the last one has the rest."""
SETTINGS_NAME = "generated.json"
"""Settings with which the images of a folder were made."""
_STAGES = ("head_model", "poses", "captions", "images", "truth")
_OUTS = tuple(f"data/{stage}" for stage in _STAGES[1:])

_README = """# Rendered images of many people

Made by `vggheads generate`: {images} images of {width} x {height} px, seed {seed}.

* `data/images/shard-*.tar`: `ID.jpg`, `ID.json`{dense}; WebDataset reads them as they are.
* `data/truth/shard-*.parquet`: a row a visible head: box, 413 FLAME parameters, visibility.
* `data/images/shard-*.parquet`, `data/poses`, `data/captions`: where each image comes from.
* `data/*/shard-*.exclusions.parquet`: what could not be made, and why.
* `data/head_model/head_model.npz`: the head model that the parameters belong to.
"""
_README_DENSE = ", `ID.dense.npz` ({maps}) and `ID.heads.json`"


class GenerateConfig(StageConfig):
    """Settings of the three stages of `vggheads generate`."""

    poses: PosesConfig
    captions: CaptionsConfig
    images: ImagesConfig


def make_shard(ws: Workspace, config: GenerateConfig, shard: str) -> StageReport:
    """Draw poses, compose scenes and render the images of one shard.

    Args:
        ws: the folder; its head model must be there.
        config: settings of the stages.
        shard: name of the shard.

    Returns:
        The report of the images, with the requested poses as its input.
    """
    drawn = poses.run_shard(ws, config.poses, shard)
    captions.run_shard(ws, config.captions, shard)
    report = images.run_shard(ws, config.images, shard)
    return dataclasses.replace(
        report, num_in=drawn.num_in, num_excluded=drawn.num_in - report.num_out
    )


def generate(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Render a dataset, or resume an interrupted one."""
    config = _config(pipeline, options)
    seed = pipeline.params.run.seed if options.seed is None else options.seed
    size = min(SHARD_SIZE, options.images)
    shards = -(-options.images // size)
    ws = Workspace(options.output.absolute(), seed, shards, size)
    head = pipeline.params.read(HeadModelConfig, "head_model")
    _claim(ws, config, head, options.images)
    workers = options.workers or pipeline.params.run.workers
    started, made, excluded = time.monotonic(), 0, 0
    for shard, report in _missing(ws, config, options.images, workers):
        made, excluded = made + report.num_out, excluded + report.num_excluded
        rate = made / (time.monotonic() - started)
        print(f"{shard} {report.num_out:5d} images, {rate:.2f} images/s", flush=True)
    total = sum(marker.num_out for marker in _markers(ws).values())
    print(f"{total} images in {options.output}, {made} of them made now, {excluded} left out")
    return 0


def evaluate(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Measure a detector on all images of a folder that `generate` made."""
    path = options.data.absolute() / SETTINGS_NAME
    if not path.is_file():
        raise ValueError(
            f"{options.data}: no {SETTINGS_NAME}; `vggheads generate` makes such folders"
        )
    made = json.loads(path.read_text(encoding="utf-8"))
    folder = options.data.absolute()
    shards = sorted((folder / "data" / "generated").glob("shard-*.json"))
    ws = Workspace(
        folder, made["seed"], len(shards), made["shard_size"],
        folders={"model": str(options.model.absolute())},
    )  # fmt: skip
    _same_head_model(options.model, ws)
    config = pipeline.params.read(benchmark.BenchmarkConfig, "benchmark")
    command = f"vggheads evaluate {options.data} --model {options.model}"
    report = benchmark.run(
        ws, config, options.name, {"model": "model"}, ("train", "val", "test"), command
    )
    print(f"{report.num_out} images; report: {folder / str(report.metadata['report'])}")
    return 0


def _same_head_model(model: Path, ws: Workspace) -> None:
    """Check that detector and images use the same head model.

    Raises:
        UnusableModel: there is no detector.
        ValueError: the head models differ.
    """
    trained = load_detector(model).description.get("head_model_sha256")
    drawn = HeadModel.load(ws.stage_dir("head_model") / head_model.MODEL_FILE).sha256
    if trained != drawn:
        raise ValueError(
            f"{model} was trained with head model {str(trained)[:12]}, the images in {ws.root} are "
            f"drawn with {drawn[:12]}: their coefficients cannot be compared"
        )


def _config(pipeline: Pipeline, options: argparse.Namespace) -> GenerateConfig:
    """Return the profile's settings, at the requested size and with the requested maps.

    Raises:
        ValueError: a number is not possible, or the profile's images are not rendered.
    """
    if options.images < 1:
        raise ValueError(f"--images: expected at least 1, got {options.images}")
    world = _world(options.world)

    def read(config_class: type[C], section: str, **asked: object) -> C:
        active = pipeline.params.read(config_class, section).model_dump()
        where = f"{options.world or 'params.yaml'} {section}"
        return read_config(
            config_class, where, {**overlay(active, world.get(section, {})), **asked}
        )

    image_config = read(ImagesConfig, "images", dense=tuple(options.dense))
    if image_config.backend != "renderer":
        raise ValueError(
            f"generate renders; the active profile's images come from {image_config.backend}. "
            "`vggheads profile demo` renders"
        )
    width, _, height = options.size.partition("x")
    if not (width.isdigit() and (height or width).isdigit()):
        raise ValueError(f"--size: expected S or WIDTHxHEIGHT in pixels, got {options.size!r}")
    return GenerateConfig(
        poses=read(
            PosesConfig, "poses", source="sampled", width=int(width), height=int(height or width)
        ),
        # Names are planted to be found and removed, which is not useful here.
        captions=read(CaptionsConfig, "captions", name_probability=0.0),
        images=image_config,
    )


def _world(path: Path | None) -> Mapping[str, Mapping[str, Any]]:
    """Read a file of changes to the active profile's people, looks and images.

    Raises:
        ValueError: the file is no YAML of such sections.
    """
    if path is None:
        return {}
    world = parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(world, dict):
        raise ValueError(f"{path}: expected sections, got {type(world).__name__}")
    known = set(GenerateConfig.model_fields)
    if unknown := sorted(set(world) - known):
        raise ValueError(
            f"{path}: expected sections {', '.join(sorted(known))}, got {', '.join(unknown)}"
        )
    return world


def _claim(ws: Workspace, config: GenerateConfig, head: HeadModelConfig, count: int) -> None:
    """Record the settings in the folder, and make the head model.

    Raises:
        ValueError: the folder holds images of other settings, or something else.
    """
    made = {
        "seed": ws.seed,
        "shard_size": ws.shard_size,
        "head_model": head.model_dump(mode="json"),
        **config.model_dump(mode="json"),
    }
    path = ws.root / SETTINGS_NAME
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if differing := _differing(known, made):
            raise ValueError(
                f"{ws.root} holds images made with other values of {', '.join(differing)}; "
                "name another folder, or remove this one"
            )
    elif ws.root.exists() and any(not p.name.startswith(PREFIX) for p in ws.root.iterdir()):
        raise ValueError(f"{ws.root} is there already and not made by `vggheads generate`")
    remove_temporaries(ws.root)
    # First of all: a folder with files but without settings is refused.
    write_text(path, json.dumps(made, indent=1, sort_keys=True) + "\n")
    readme = ws.root / "README.md"
    # Written after the head model and its images, so it says that they are complete.
    if not readme.is_file():
        head_model.run(ws, head)
    maps = config.images.dense
    text = _README.format(
        images=count,
        width=config.poses.width,
        height=config.poses.height,
        seed=ws.seed,
        dense=_README_DENSE.format(maps=", ".join(maps)) if maps else "",
    )
    write_text(readme, text)


def _differing(known: Any, made: Any, name: str = "") -> list[str]:
    """Return names of the values that differ, dotted."""
    if not (isinstance(known, dict) and isinstance(made, dict)):
        return [] if known == made else [name]
    keys = sorted({*known, *made})
    parts = [_differing(known.get(key), made.get(key), f"{name}.{key}".strip(".")) for key in keys]
    return [found for part in parts for found in part]


def _missing(
    ws: Workspace, config: GenerateConfig, count: int, num_workers: int
) -> Iterator[tuple[str, StageReport]]:
    """Make the shards that are not finished, and mark each one when it is."""
    finished = _markers(ws)
    tasks = []
    for index in range(ws.num_shards):
        size = min(ws.shard_size, count - index * ws.shard_size)
        marker = finished.get(shard_name(index))
        if marker is None or marker.fingerprint != _fingerprint(size):
            function = f"{__name__}:{make_shard.__name__}"
            own = dataclasses.replace(ws, shard_size=size)
            tasks.append(ShardTask(function, own, config, shard_name(index)))
    if not tasks:
        return
    sizes = {task.shard: task.ws.shard_size for task in tasks}
    workers, number = None, 1
    if num_workers > 1 and len(tasks) > 1:
        workers, number = open_local(WorkerConfig(), min(num_workers, len(tasks)))
    for shard, report in make_shards(tasks, workers, number):
        marker = Marker(
            fingerprint=_fingerprint(sizes[shard]),
            files=unit_files(ws.root, _OUTS, shard),
            num_in=report.num_in,
            num_out=report.num_out,
            num_excluded=report.num_excluded,
        )
        write_marker(ws.stage_dir("generated"), shard, marker)
        yield shard, report
    # What workers left that were lost within this run.
    remove_temporaries(ws.root)


def _markers(ws: Workspace) -> dict[str, Marker]:
    """Return the finished ones of the requested shards."""
    found = {shard: read_marker(ws.stage_dir("generated"), shard) for shard in ws.shards}
    return {
        shard: marker
        for shard, marker in found.items()
        if marker is not None and complete(ws.root, marker)
    }


def _fingerprint(shard_size: int) -> str:
    """Return the length of a shard, which is part of its identity; `_claim` compares the rest."""
    return f"{shard_size} images"
