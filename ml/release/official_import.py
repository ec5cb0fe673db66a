"""The official release as our dataset: one part becomes one shard, read once, resumed by part."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pandas as pd

from ml.imaging.boxes import xyxy_to_xywh
from ml.records import reasons
from ml.records.atomic import remove, write_json
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_seed, shard_name
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardWriter, shard_writer
from ml.records.tables import (
    ANNOTATED_IMAGES,
    DATASET_HEADS,
    HEADS,
    IMAGES,
    VERDICTS,
    TableSpec,
    empty_table,
    iter_table,
    read_table,
    table_writer,
    write_table,
)
from ml.records.workspace import Workspace
from ml.release.archives import NotARelease, PartFiles, Release
from ml.release.official import ImageLabels
from ml.release.official_reader import (
    OfficialSample,
    SplitRule,
    comparable,
    iter_part,
    listed_names,
)

RELEASE_HEAD_MODEL = "flame-2020"
RELEASE_TEACHER = "official-release"
_NAME = "import_official"


@dataclass
class ImportedRelease:
    """What an import made.

    Attributes:
        shards: shard -> the part it was made of, in order.
        num_in: images in the sources, and annotations without one.
        counts: split -> images.
        excluded: reason -> how many.
    """

    shards: dict[str, str] = field(default_factory=dict)
    num_in: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)


def import_official(
    sources: Path | Sequence[Path],
    root: Path,
    seed: int = 0,
    head_model: str = RELEASE_HEAD_MODEL,
) -> StageReport:
    """Make the folders `images`, `annotations` and `filtered_dataset` of a project of a release.

    Args:
        sources: unpacked releases, folders of tars, or tars.
        root: the project folder to write `data/` into.
        seed: run seed to record.
        head_model: identity of the head model the parameters belong to; coefficients of another
            FLAME release would be meaningless.

    Returns:
        Counts of images.

    Raises:
        NotARelease: there is no usable image in it.
    """
    given = [sources] if isinstance(sources, Path) else list(sources)
    ws = Workspace(root, seed, num_shards=1, shard_size=1)
    journal = root / "data" / f"{_NAME}.csv"
    remove(journal)
    exclusions = Exclusions(_NAME, journal)
    work = ws.work_dir(_NAME)
    release = Release(given, work, exclusions)
    imported = import_release(release, ws, work, SplitRule(), head_model, exclusions)
    exclusions.write(ws, "import")
    remove(work)
    num_out = imported.counts.total()
    return StageReport(
        num_in=imported.num_in,
        num_out=num_out,
        num_excluded=len(exclusions),
        metadata={"num_splits": len(imported.shards), "head_model": head_model},
        tables={"exclusions": exclusions.to_frame()},
    )


def import_release(
    release: Release,
    ws: Workspace,
    work: Path,
    rule: SplitRule,
    head_model: str,
    exclusions: Exclusions,
) -> ImportedRelease:
    """Write shards and tables; parts that a killed run finished are not read again.

    Writes `images` (tars and tables), `annotations` (heads, and images with their numbers of
    heads) and, in `filtered_dataset`, the heads and verdicts of all.

    Args:
        release: the listed release.
        ws: where to write; `folders` may lead the three stages elsewhere.
        work: folder in which finished parts are noted.
        rule: which images are for what.
        head_model: identity of the head model the parameters belong to.
        exclusions: receives what is left out.

    Returns:
        Shards and counts.

    Raises:
        NotARelease: there is no usable image in it.
    """
    found = ImportedRelease()
    names = _Names(release)
    num_of_parts = 0
    for part in progress(release.parts, "parts"):
        files = release.files(part)
        note = work / f"{part.replace('/', '-')}.json"
        if not note.is_file():
            shard = shard_name(len(found.shards))
            mine = Exclusions(exclusions.stage)
            samples = names.new(iter_part(files, mine), mine)
            counts = _import_part(ws, shard, samples, rule, head_model)
            written = read_verdicts(ws, shard)["sample_id"] if counts else ()
            mine.account(listed_names(files), written)
            rows = mine.rows()
            write_json(note, {"shard": shard, "counts": counts, "excluded": rows}, indent=None)
        else:
            names.remember(files)
        found.num_in += len(listed_names(files))
        noted = json.loads(note.read_text(encoding="utf-8"))
        exclusions.extend(noted["excluded"])
        num_of_parts += len(noted["excluded"])
        if noted["counts"]:
            found.shards[noted["shard"]] = part
            found.counts.update(noted["counts"])
    if not found.shards:
        raise NotARelease(f"no usable image among {len(exclusions)} of the release")
    # What is no file of a part was excluded when the sources were listed.
    found.num_in += len(exclusions) - num_of_parts
    found.excluded.update(row["reason"] for row in exclusions.rows())
    _join(ws, list(found.shards), work)
    return found


def _import_part(
    ws: Workspace,
    shard: str,
    samples: Iterator[OfficialSample],
    rule: SplitRule,
    head_model: str,
) -> dict[str, int]:
    """Write one part as a shard; returns its images by split, none where it has no usable one."""
    first = next(samples, None)
    if first is None:
        # No shard of nothing: a tar does not contain empty folders.
        return {}
    rows = _ImportedShard(shard, head_model, rule)
    with shard_writer(ws.stage_dir("images") / f"{shard}.tar") as writer:
        for sample in progress(chain([first], samples), first.split_name):
            rows.add(sample, writer)
    write_table(ws.table_path("images", shard), _frame(rows.images, IMAGES), IMAGES)
    # The annotation stage's tables, so that exports and checks find the same heads.
    write_table(ws.table_path("annotations", shard), _frame(rows.heads, HEADS), HEADS)
    counts = _frame(rows.verdicts, VERDICTS)[["sample_id", "split", "num_heads"]]
    write_table(ws.table_path("annotations", f"{shard}.images"), counts, ANNOTATED_IMAGES)
    verdicts = _frame(rows.verdicts, VERDICTS)
    write_table(ws.table_path("annotations", f"{shard}.verdicts"), verdicts, VERDICTS)
    return dict(Counter(str(row["split"]) for row in rows.images))


def _join(ws: Workspace, shards: Sequence[str], work: Path) -> None:
    """Write the dataset's own tables: heads and verdicts of all shards, piece by piece."""
    dataset = ws.stage_dir("filtered_dataset")
    with table_writer(dataset / "heads.parquet", DATASET_HEADS) as heads:
        for shard in shards:
            for frame in iter_table(ws.table_path("annotations", shard), HEADS):
                heads.append(frame.assign(shard=shard))
    with table_writer(dataset / "verdicts.parquet", VERDICTS) as verdicts:
        for shard in shards:
            verdicts.append(read_verdicts(ws, shard))


def read_verdicts(ws: Workspace, shard: str) -> pd.DataFrame:
    """Return the verdicts of one imported shard.

    Args:
        ws: the workspace that was written to.
        shard: its name.

    Returns:
        Columns of `VERDICTS`.
    """
    return read_table(ws.table_path("annotations", f"{shard}.verdicts"), VERDICTS)


class _Names:
    """The names that were taken: ids are one for all parts, and file systems differ in case.

    Keeps 8 bytes of a hash for each, not the name.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._part_of: dict[int, str] = {}

    def new(
        self, samples: Iterator[OfficialSample], exclusions: Exclusions
    ) -> Iterator[OfficialSample]:
        """Give on the samples whose names are new; exclude the others."""
        for sample in samples:
            part = self._part_of.setdefault(self._key(sample.sample_id), sample.split_name)
            if part == sample.split_name:
                yield sample
                continue
            wanted = comparable(sample.sample_id)
            files = self._release.files(part).images
            first = next(file.stem for file in files if comparable(file.stem) == wanted)
            detail = f"{sample.split_name}/{sample.sample_id}: {part}/{first} has the name too"
            exclusions.add(sample.sample_id, reasons.DUPLICATE, detail)

    def remember(self, files: PartFiles) -> None:
        """Take the names of a part that was imported before."""
        for file in files.images:
            self._part_of.setdefault(self._key(file.stem), files.name)

    @staticmethod
    def _key(name: str) -> int:
        return sample_seed(0, "name", comparable(name))


class _ImportedShard:
    """Rows of the tables of one part."""

    def __init__(self, name: str, head_model: str, rule: SplitRule) -> None:
        self.images: list[dict[str, object]] = []
        self.heads: list[dict[str, object]] = []
        self.verdicts: list[dict[str, object]] = []
        self._name, self._head_model, self._rule = name, head_model, rule

    def add(self, sample: OfficialSample, writer: ShardWriter) -> None:
        """Write an image, and keep its rows."""
        height, width = sample.image_rgb.shape[:2]
        split = self._rule.of(sample.split_name, sample.sample_id, sample.listed)
        meta = {"sample_id": sample.sample_id, "origin": sample.split_name}
        span = writer.add(sample.sample_id, {"jpg": sample.jpeg, "json": meta})["jpg"]
        common = {"sample_id": sample.sample_id, "split": split}
        count = len(sample.labels.boxes_xyxy)
        self.images.append(
            {
                **common,
                "shard": self._name,
                "pose_id": sample.sample_id,
                "width": width,
                "height": height,
                "offset": span.offset,
                "size": span.size,
                "sha256": hashlib.sha256(sample.jpeg).hexdigest(),
                "seed": 0,
                "generator": RELEASE_TEACHER,
                "num_people": count,
                "mean_luma": float(sample.image_rgb.mean()),
            }
        )
        self.verdicts.append(
            {
                **common,
                "shard": self._name,
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
            "bbox_xywh": xyxy_to_xywh(box),
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


def _frame(rows: Sequence[Mapping[str, object]], spec: TableSpec) -> pd.DataFrame:
    if not rows:
        return empty_table(spec)
    frame = pd.DataFrame(rows)
    return frame.astype({"stability": "float64"}) if "stability" in frame else frame
