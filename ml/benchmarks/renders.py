"""Our own held-out renders, as a set like the public ones; the full report is the stage benchmark.

An image's id is its sample id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ml.benchmarks.files import MissingBenchmarkFile
from ml.benchmarks.samples import BenchmarkSample, FaceBoxes
from ml.evaluation.samples import EVALUATED, ignored_heads
from ml.records.exclusions import Exclusions
from ml.records.tables import IMAGES, TRUTH, read_table
from ml.training_data.labels import exact_labels
from ml.training_data.samples import HeadSamples

NAME = "renders"
SPLIT = "test"


def read_renders(
    root: Path, exclusions: Exclusions, split: str = SPLIT
) -> Iterator[BenchmarkSample[FaceBoxes]]:
    """Yield the rendered images of a split, shard by shard.

    Args:
        root: a project folder, whose `data/images` and `data/truth` hold the renders.
        exclusions: receives images that cannot be read.
        split: train, val or test.

    Yields:
        Images in order; heads that are hardly visible are ignored.

    Raises:
        MissingBenchmarkFile: there are no renders.
    """
    folder, limits = Path(root) / "data", EVALUATED
    tables = sorted((folder / "images").glob("shard-*[0-9].parquet"))
    if not tables:
        raise MissingBenchmarkFile(f"renders: no tables {folder}/images/shard-*.parquet")
    for table in tables:
        images = read_table(table, IMAGES)
        ids = list(images.loc[images["split"] == split, "sample_id"])
        truth = read_table(folder / "truth" / table.name, TRUTH)
        truth = truth[truth["sample_id"].isin(ids)].reset_index(drop=True)
        shards = [folder / "images" / f"{table.stem}.tar"] * len(ids)
        samples = HeadSamples(ids, shards, exact_labels(truth, limits)).without_damaged(exclusions)
        for index in range(len(samples)):
            sample = samples[index]
            boxes = FaceBoxes(sample.labels.boxes_xyxy, ignore=ignored_heads(sample.labels, limits))
            yield BenchmarkSample(sample.sample_id, _loaded(sample.image_rgb), boxes)


def _loaded(image_rgb: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: image_rgb
