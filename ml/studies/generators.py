"""Image generators on the same prompts and poses, against one reference (paper 5.4, table 6)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ml.benchmarks.generation_quality import Measuring, compare_sets
from ml.benchmarks.tables import ModelResults, write_tables
from ml.generation.config import ImagesConfig
from ml.records.atomic import remove, write_json
from ml.records.config import overlay, read_config
from ml.records.models import hash_model
from ml.records.progress import progress
from ml.records.workspace import Workspace
from ml.stages import images
from ml.studies.links import link, slug
from ml.training.tracking import Tracker

GIVEN_STAGES = ("poses", "captions", "head_model")
OpenRun = Callable[[str, Mapping[str, str]], AbstractContextManager[Tracker]]


@dataclass(frozen=True)
class Generator:
    """One row of the table.

    Attributes:
        name: in the table.
        changes: over the section `images`: backend and models.
        condition: its condition, for the table's column.
    """

    name: str
    changes: Mapping[str, Any]
    condition: str = ""

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return slug(self.name)


@dataclass(frozen=True)
class Reference:
    """Real images that generators are compared with.

    Attributes:
        images: folder or tars of real images.
        limit: read at most this many; 1,500 in the paper.
    """

    images: Path
    limit: int | None = field(default=None)


def compare_generators(
    ws: Workspace,
    values: Mapping[str, Mapping[str, Any]],
    generators: Sequence[Generator],
    reference: Reference,
    measuring: Measuring,
    open_run: OpenRun,
) -> Path:
    """Make the dataset's images with each generator and measure them.

    Prompts, poses and seeds of images are the project's own, so generators differ in nothing else.
    Shards that are finished are not made again, unless configuration, prompts or poses changed.

    Args:
        ws: the workspace; poses, captions and head model must exist.
        values: effective values, section -> key -> value.
        generators: the rows.
        reference: real images.
        measuring: how images become features.
        open_run: opens an MLflow run for a generator.

    Returns:
        The folder with the tables and, for each generator, its images.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: values that do not fit, or two generators of one name.
    """
    folder = ws.stage_dir("studies") / "generators"
    results = []
    for generator in generators:
        place = replace(ws, root=folder / generator.slug)
        for name in GIVEN_STAGES:
            link(place.stage_dir(name), ws.stage_dir(name))
        config = read_config(ImagesConfig, "images", overlay(values["images"], generator.changes))
        _forget_others(place, config)
        tags = {"study": "generators", "variant": generator.name}
        with open_run(f"generators: {generator.name}", tags) as tracker:
            tracker.log_params({"backend": config.backend, "condition": generator.condition})
            for shard in progress(ws.shards, generator.name):
                if not (place.stage_dir("truth") / f"{shard}.parquet").is_file():
                    images.run_shard(place, config, shard)
            # the stage's folder holds previews as well
            tars = place.root / "tars"
            for shard in ws.shards:
                link(tars / f"{shard}.tar", place.stage_dir("images") / f"{shard}.tar")
            sources = [(generator.name, tars)]
            found = compare_sets(sources, reference.images, measuring, reference.limit)
            scores = found[generator.name]
            finite = {k: v for k, v in scores.as_dict().items() if math.isfinite(v)}
            tracker.log_metrics({f"generation/{name}": value for name, value in finite.items()})
        entry = {
            **{k: finite.get(k) for k in scores.as_dict()},
            "set": "generation",
            "protocol": "generation_quality",
            "model": generator.name,
            "notes": list(scores.notes),
        }
        labels = {"Condition": generator.condition}
        results.append(ModelResults(generator.name, "ours", [entry], labels))
    provenance = {"seed": str(ws.seed), "command": "vggheads study generators"}
    write_tables(folder, results, provenance)
    return folder


def _forget_others(place: Workspace, config: ImagesConfig) -> None:
    """Remove shards that another configuration, or other prompts and poses, have left."""
    parts = [config.model_dump_json(), str(place.seed)]
    parts += [hash_model(place.stage_dir(name)) for name in GIVEN_STAGES]
    identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    begun = place.root / "begun.json"
    if begun.is_file() and json.loads(begun.read_text(encoding="utf-8")) == identity:
        return
    for name in ("images", "truth"):
        remove(place.stage_dir(name))
    write_json(begun, identity)
