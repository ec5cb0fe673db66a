"""Our dataset in the official layout, and the official release as our dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from ml.records import reasons
from ml.records.atomic import remove, temporary_path, write_bytes, write_json, write_text
from ml.records.exclusions import Exclusions
from ml.records.ids import shard_name
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardWriter, shard_writer
from ml.records.tables import (
    DATASET_HEADS,
    HEADS,
    IMAGES,
    VERDICTS,
    TableSpec,
    empty_table,
    table_writer,
    write_table,
)
from ml.records.workspace import Workspace
from ml.release.official import ImageLabels, encode_annotation, to_official
from ml.release.official_reader import (
    NUM_VAL_SPLITS,
    NotARelease,
    OfficialSample,
    comparable,
    iter_release,
    split_of,
)
from ml.release.source import DatasetItem

IMAGES_PER_SPLIT = 10_000
_HELD_OUT = {"val": range(NUM_VAL_SPLITS)}
RELEASE_HEAD_MODEL = "flame-2020"
RELEASE_TEACHER = "official-release"


class OfficialWriter:
    """Writes samples into `large/split_*`; a split folder appears when it is complete.

    Val samples go to the two splits on which the official training validates, train samples to the
    others, test samples to `test/split_*` beside `large`, where no official script looks.
    """

    def __init__(self, root: Path, images_per_split: int = IMAGES_PER_SPLIT) -> None:
        """Choose where to write.

        Args:
            root: new folder.
            images_per_split: images in a split folder; all that are left go to the last of val.
        """
        self._root, self._size = root, images_per_split
        self._next = {"train": NUM_VAL_SPLITS, "val": 0, "test": 0}
        self._open: dict[str, _Split] = {}

    def add(self, item: DatasetItem) -> None:
        """Write one image and its annotation.

        Args:
            item: the sample.
        """
        split = self._open.get(item.split)
        full = split is not None and split.count >= self._size
        last_val = item.split == "val" and self._next["val"] >= NUM_VAL_SPLITS
        if split is None or (full and not last_val):
            self._close(item.split)
            base = self._root / ("test" if item.split == "test" else "large")
            split = _Split(base / f"split_{self._next[item.split]:05d}")
            self._next[item.split] += 1
            self._open[item.split] = split
        split.add(item)

    def close(self) -> None:
        """Complete the open splits; val always has its two, for the official loader lists both."""
        for name in ("val", "train", "test"):
            self._close(name)
        while self._next["val"] < NUM_VAL_SPLITS:
            _Split(self._root / "large" / f"split_{self._next['val']:05d}").close()
            self._next["val"] += 1

    def _close(self, name: str) -> None:
        if name in self._open:
            self._open.pop(name).close()


class _Split:
    """One split folder while it is being written, under a hidden name."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._temporary = temporary_path(folder)
        remove(self._temporary)
        self._metrics: list[dict[str, str | int | float | None]] = []
        for name in ("images", "annotations"):
            (self._temporary / name).mkdir(parents=True, exist_ok=True)

    def add(self, item: DatasetItem) -> None:
        labels = ImageLabels(item.boxes_xyxy, item.flame, item.flame_valid)
        heads = to_official(labels, item.width, item.height)
        name = item.sample_id
        write_bytes(self._temporary / "images" / f"{name}.jpg", item.jpeg)
        write_bytes(self._temporary / "annotations" / f"{name}.npz", encode_annotation(heads))
        self._metrics.append(
            {
                "filename": f"{name}.jpg",
                "num_heads": len(item),
                "stability_metric": item.stability,
            }
        )
        self.count += 1

    def close(self) -> None:
        # Removed images are not written, so nobody has to be told to skip them.
        write_text(self._temporary / "files.txt", "")
        write_json(self._temporary / "metrics.json", self._metrics)
        remove(self._folder)
        os.replace(self._temporary, self._folder)


def write_official(
    items: Iterable[DatasetItem], root: Path, images_per_split: int = IMAGES_PER_SPLIT
) -> int:
    """Write a dataset in the official layout, streaming.

    Args:
        items: the samples.
        root: new folder.
        images_per_split: images in a split folder.

    Returns:
        Number of images written.
    """
    writer = OfficialWriter(root, images_per_split)
    count = 0
    for item in items:
        writer.add(item)
        count += 1
    writer.close()
    return count


def import_official(
    source: Path, root: Path, seed: int = 0, head_model: str = RELEASE_HEAD_MODEL
) -> StageReport:
    """Make our tables and shards of a release: one split becomes one shard, read once.

    What comes out are the folders `images` and `filtered_dataset` of a workspace, which training,
    statistics and exports read.

    Args:
        source: an unpacked release or its tar.
        root: the project folder to write `data/` into.
        seed: run seed to record.
        head_model: identity of the head model the parameters belong to; coefficients of another
            FLAME release would be meaningless.

    Returns:
        Counts of images.

    Raises:
        NotARelease: there is no usable image in it.
    """
    exclusions = Exclusions("import_official", root / "data" / "import_official.csv")
    remove(root / "data" / "import_official.csv")
    counts: list[int] = []
    seen: dict[str, str] = {}
    workspace = Workspace(root, seed, num_shards=1, shard_size=IMAGES_PER_SPLIT)
    dataset = workspace.stage_dir("filtered_dataset")
    with ExitStack() as stack:
        heads = stack.enter_context(table_writer(dataset / "heads.parquet", DATASET_HEADS))
        verdicts = stack.enter_context(table_writer(dataset / "verdicts.parquet", VERDICTS))
        splits = iter_release(source, exclusions, spool=workspace.root / "data")
        for samples in progress(splits, "splits"):
            first = next(samples, None)
            if first is None:
                # No shard of nothing: a tar does not tell of empty folders as a folder does.
                continue
            shard = _ImportedShard(shard_name(len(counts)), head_model)
            with shard_writer(workspace.stage_dir("images") / f"{shard.name}.tar") as writer:
                for sample in chain([first], samples):
                    key, where = comparable(sample.sample_id), f"{sample.split_name}/"
                    if key in seen:
                        detail = f"{where}{sample.sample_id}: {seen[key]} has the name too"
                        exclusions.add(sample.sample_id, reasons.DUPLICATE, detail)
                        continue
                    seen[key] = where + sample.sample_id
                    shard.add(sample, writer)
            write_table(
                workspace.table_path("images", shard.name), _frame(shard.images, IMAGES), IMAGES
            )
            frame = _frame(shard.heads, DATASET_HEADS)
            heads.append(frame)
            verdicts.append(_frame(shard.verdicts, VERDICTS))
            # The annotation stage's table, so that exports and checks find the same heads.
            write_table(
                workspace.table_path("annotations", shard.name),
                frame.drop(columns="shard"),
                HEADS,
            )
            counts.append(len(shard.images))
        if not sum(counts):
            raise NotARelease(f"{source}: no usable image among {len(exclusions)}")
    exclusions.write(workspace, "import")
    return StageReport(
        num_in=sum(counts) + len(exclusions),
        num_out=sum(counts),
        num_excluded=len(exclusions),
        metadata={"num_splits": len(counts), "head_model": head_model},
        tables={"exclusions": exclusions.to_frame()},
    )


class _ImportedShard:
    """Rows of the tables of one split."""

    def __init__(self, name: str, head_model: str) -> None:
        self.name = name
        self.images: list[dict[str, object]] = []
        self.heads: list[dict[str, object]] = []
        self.verdicts: list[dict[str, object]] = []
        self._head_model = head_model

    def add(self, sample: OfficialSample, writer: ShardWriter) -> None:
        height, width = sample.image_rgb.shape[:2]
        split = split_of(sample.split_name)
        meta = {"sample_id": sample.sample_id, "origin": sample.split_name}
        span = writer.add(sample.sample_id, {"jpg": sample.jpeg, "json": meta})["jpg"]
        common = {"sample_id": sample.sample_id, "split": split, "shard": self.name}
        self.images.append(
            {
                **common,
                "pose_id": sample.sample_id,
                "width": width,
                "height": height,
                "offset": span.offset,
                "size": span.size,
                "sha256": hashlib.sha256(sample.jpeg).hexdigest(),
                "seed": 0,
                "generator": RELEASE_TEACHER,
                "num_people": len(sample.labels.boxes_xyxy),
                "mean_luma": float(sample.image_rgb.mean()),
            }
        )
        count = len(sample.labels.boxes_xyxy)
        self.verdicts.append(
            {
                **common,
                "keep": True,
                "reason": "keep",
                "detail": "as released",
                "num_heads": count,
                "num_heads_flipped": count,
                "num_heads_halves": -1,
                "num_faces_missed": -1,
                "stability": sample.stability,
            }
        )
        self.heads += [
            {**common, "head_id": head_id, **row, "head_model": self._head_model}
            for head_id, row in enumerate(_head_rows(sample.labels))
        ]


def _head_rows(labels: ImageLabels) -> list[dict[str, object]]:
    return [
        {
            "bbox_xywh": np.concatenate([box[:2], box[2:] - box[:2]]),
            "score": 1.0,
            "flame": flame if valid else None,
            "flame_status": "ok" if valid else "small",
            "teacher": RELEASE_TEACHER,
            "threshold": 0.5,
            "source": "pseudo",
        }
        for box, flame, valid in zip(
            labels.boxes_xyxy, labels.flame, labels.flame_valid, strict=True
        )
    ]


def _frame(rows: list[dict[str, object]], spec: TableSpec) -> pd.DataFrame:
    if not rows:
        return empty_table(spec)
    frame = pd.DataFrame(rows)
    return frame.astype({"stability": "float64"}) if "stability" in frame else frame
