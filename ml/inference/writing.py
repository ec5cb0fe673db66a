"""Results into files: a folder for each image, with drawing, JSON, meshes and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from ml.imaging.io import encode_jpeg, encode_png
from ml.inference.options import FORMATS, DrawMethod, MeshFormat, MeshUnit
from ml.inference.results import PredictionResult, coco_of
from ml.inference.sources import OneImage, expand, is_video, video_info
from ml.records.atomic import atomic_write, write_bytes, write_json, write_text
from ml.records.exclusions import Exclusions

if TYPE_CHECKING:
    from ml.inference.detector import HeadDetector

STAGE = "predict"
EXCLUDED_NAME = "excluded.csv"
COCO_NAME = "coco.json"


@dataclass
class Summary:
    """What was done.

    Attributes:
        output: where the files are.
        images: images and frames looked at.
        heads: heads found in them.
        excluded: sources that could not be read; `excluded.csv` says why.
    """

    output: Path
    images: int = 0
    heads: int = 0
    excluded: int = 0

    def add(self, result: PredictionResult) -> None:
        """Count an image."""
        self.images += 1
        self.heads += len(result)

    def __str__(self) -> str:
        """One line for the terminal."""
        left_out = f", {self.excluded} not readable (see {EXCLUDED_NAME})" if self.excluded else ""
        return f"{self.output}: {self.heads} heads in {self.images} images{left_out}"


@dataclass
class ResultWriter:
    """Writes results below one folder.

    Attributes:
        output: created if missing.
        draw: how heads are drawn.
        meshes: formats of meshes; None: obj and glb for images, none for the frames of videos.
        unit: of the meshes.
        pncc: write PNCC maps.
        crops: write upright heads of this size, px; 0: as many pixels as found; None: none.
    """

    output: Path
    draw: DrawMethod = "full"
    meshes: list[MeshFormat] | None = None
    unit: MeshUnit = "m"
    pncc: bool = False
    crops: int | None = None

    def write_all(self, detector: HeadDetector, sources: list[Path]) -> Summary:
        """Find heads in all sources and write what was found.

        Images give `<name>/drawing.jpg`, `heads.json` and meshes, and all of them together
        `coco.json`; a video gives `<name>/drawing.mp4` and `heads.jsonl`, a line a frame, and per
        frame only what is asked for.

        Args:
            detector: the detector.
            sources: images, folders and videos.

        Returns:
            Counts; what could not be read is in `excluded.csv`.

        Raises:
            FileNotFoundError: a source does not exist.
            ValueError: a folder holds no image, or something needs a head model and there is none.
        """
        missing = [str(source) for source in sources if not source.exists()]
        if missing:
            raise FileNotFoundError(f"predict: no such file or folder: {', '.join(missing)}")
        summary, exclusions = Summary(self.output), Exclusions(STAGE)
        folders = self._folders(sources)
        pictures: list[OneImage] = [path for path in folders if not is_video(path)]
        if pictures:
            results = detector.stream(pictures, exclusions)
            coco = coco_of(self._written(results, folders, summary))
            if summary.images:
                write_json(self.output / COCO_NAME, coco)
        for video in (path for path in folders if is_video(path)):
            results = detector.stream(video, exclusions)
            self._write_video(results, video, folders[video], summary)
        summary.excluded = len(exclusions)
        if summary.excluded:
            write_text(self.output / EXCLUDED_NAME, exclusions.to_frame().to_csv(index=False))
        return summary

    def _folders(self, sources: list[Path]) -> dict[Path, Path]:
        """Every file and the folder of its results; two never share one."""
        folders: dict[Path, Path] = {}
        taken: set[Path] = set()
        for source in sources:
            for entry in expand(source):
                path = Path(str(entry))
                inside = path.relative_to(source) if source.is_dir() else Path(path.name)
                folder = inside.with_suffix("")
                number = 2
                while folder in taken:
                    folder = inside.with_name(f"{inside.stem}-{number}")
                    number += 1
                taken.add(folder)
                folders[path] = self.output / folder
        return folders

    def _written(
        self, results: Iterator[PredictionResult], folders: dict[Path, Path], summary: Summary
    ) -> Iterator[PredictionResult]:
        """Write each result as it comes and pass it on."""
        for result in results:
            folder = folders[Path(result.name)]
            meshes = FORMATS if self.meshes is None else self.meshes
            write_bytes(folder / "drawing.jpg", encode_jpeg(result.draw(self.draw)))
            write_json(folder / "heads.json", result.to_json())
            self._write_extras(result, folder, meshes)
            summary.add(result)
            yield result

    def _write_video(
        self, results: Iterator[PredictionResult], path: Path, folder: Path, summary: Summary
    ) -> None:
        first = next(results, None)
        if first is None:  # not readable: a row of the exclusions
            return
        _, rate = video_info(path)
        height, width = first.image_rgb.shape[:2]
        with (
            atomic_write(folder / "drawing.mp4") as drawing,
            atomic_write(folder / "heads.jsonl") as lines,
            _video_writer(drawing, rate, width, height) as frames,
            lines.open("w") as text,
        ):
            for number, result in enumerate(chain([first], results)):
                frames.write(cv2.cvtColor(result.draw(self.draw), cv2.COLOR_RGB2BGR))
                text.write(json.dumps(result.to_json(), sort_keys=True, allow_nan=False) + "\n")
                self._write_extras(result, folder / f"frame-{number:05d}", self.meshes or [])
                summary.add(result)

    def _write_extras(
        self, result: PredictionResult, folder: Path, meshes: Sequence[MeshFormat]
    ) -> None:
        for form in meshes:
            result.save_meshes(folder, form, self.unit)
        if self.pncc:
            write_bytes(folder / "pncc.png", encode_png(result.pncc()))
        if self.crops is not None:
            for index, crop in enumerate(result.aligned_heads(self.crops or None)):
                write_bytes(folder / f"head_{index}.jpg", encode_jpeg(crop.image_rgb))


@contextmanager
def _video_writer(path: Path, rate: float, width: int, height: int) -> Iterator[cv2.VideoWriter]:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    if not writer.isOpened():
        raise ValueError(f"{path}: this OpenCV cannot write MPEG-4 videos")
    try:
        yield writer
    finally:
        writer.release()
