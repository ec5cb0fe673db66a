"""Writing of results: a folder for each image, with drawing, JSON, meshes and further outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ml.imaging.io import encode_jpeg, encode_png
from ml.inference.live import LiveSource
from ml.inference.options import DrawMethod, MeshFormat, MeshUnit
from ml.inference.output_folder import OutputFolder
from ml.inference.results import PredictionResult, coco_of
from ml.inference.sources import OneImage, expand, is_video
from ml.inference.videos import video_writer
from ml.records.atomic import atomic_write, write_bytes, write_json
from ml.records.exclusions import Exclusions
from ml.records.remote import AnyPath, RemotePath

if TYPE_CHECKING:
    from ml.inference.detector import HeadDetector

STAGE = "predict"
EXCLUDED_NAME = "excluded.csv"
COCO_NAME = "coco.json"


@dataclass
class Summary:
    """Counts of a run.

    Attributes:
        output: where the files are.
        images: images and frames looked at.
        heads: heads found in them.
        excluded: sources, and parts of videos, that could not be read; `excluded.csv` says why.
        other: files of folders that are neither images nor videos; it lists them too.
        stopped: whether a person ended a camera or stream.
    """

    output: Path
    images: int = 0
    heads: int = 0
    excluded: int = 0
    other: int = 0
    stopped: bool = False

    def add(self, result: PredictionResult) -> None:
        """Count an image."""
        self.images += 1
        self.heads += len(result)

    def __str__(self) -> str:
        """Return one line for the terminal."""
        left_out = f", {self.excluded} not readable" if self.excluded else ""
        left_out += f", {self.other} files of another kind" if self.other else ""
        told = f"{left_out} (see {self.output / EXCLUDED_NAME})" if left_out else ""
        ended = "; stopped before the end" if self.stopped else ""
        heads, images = _counted(self.heads, "head"), _counted(self.images, "image")
        return f"{self.output}: {heads} in {images}{told}{ended}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


@dataclass
class ResultWriter:
    """Writes results below one folder.

    Attributes:
        output: created if missing.
        draw: how heads are drawn; None: no drawings.
        meshes: formats of meshes.
        unit: of the meshes.
        pncc: write PNCC maps.
        crops: write upright heads of this size, px; 0: the size in the image; None: none.
        frames: stop a camera or stream after this many frames; None: at its end or by Ctrl-C.
        tracks: follow heads through videos, cameras and streams.
    """

    output: Path
    draw: DrawMethod | None = None
    meshes: Sequence[MeshFormat] = ()
    unit: MeshUnit = "m"
    pncc: bool = False
    crops: int | None = None
    frames: int | None = None
    tracks: bool = False

    def write_all(self, detector: HeadDetector, sources: Sequence[AnyPath | LiveSource]) -> Summary:
        """Find heads in all sources and write the results.

        Images give `<name>/heads.json`, and all of them together `coco.json`; a video, camera or
        stream gives `<name>/heads.jsonl`, a line a frame. Drawings (`drawing.jpg`, `drawing.mp4`),
        meshes, maps and crops are written if they are asked for. What an earlier run wrote into the
        folder goes first, and what is excluded is written down as it happens.

        Args:
            detector: the detector.
            sources: images, folders, videos, addresses of images and folders, cameras and
                streams.

        Returns:
            Counts; unreadable sources are in `excluded.csv`.

        Raises:
            FileNotFoundError: a source does not exist.
            StoreUnavailable: the store of an address cannot be read.
            ValueError: a folder holds no image, a source is in the output folder or is no file,
                or something needs a head model and there is none.
        """
        output = OutputFolder(self.output)
        files = [source for source in sources if not isinstance(source, LiveSource)]
        output.check_sources(files)
        summary = Summary(self.output)
        exclusions = Exclusions(STAGE, self.output / EXCLUDED_NAME)
        output.begin()
        folders = self._folders(files, exclusions)
        summary.other = len(exclusions)
        stills: list[OneImage] = [path for path in folders if not is_video(path)]
        if stills:
            results = detector.stream(stills, exclusions)
            coco = coco_of(self._written(results, folders, output, summary))
            if summary.images:
                write_json(self.output / COCO_NAME, coco)
        for video in (path for path in folders if isinstance(path, Path) and is_video(path)):
            results = self._followed(detector.stream(video, exclusions))
            output.note(folders[video])
            self._write_video(results, folders[video], summary)
        for live in (source for source in sources if isinstance(source, LiveSource)):
            results = self._followed(islice(detector.stream(live, exclusions), self.frames))
            output.note(self.output / live.name)
            self._write_video(results, self.output / live.name, summary, live=True)
            if summary.stopped:
                break
        summary.excluded = len(exclusions) - summary.other
        return summary

    def _followed(self, results: Iterator[PredictionResult]) -> Iterator[PredictionResult]:
        """Track the heads of one video, if requested."""
        if not self.tracks:
            return results
        from ml.inference.tracks import HeadTracks

        return HeadTracks().follow(results)

    def _folders(self, sources: list[AnyPath], exclusions: Exclusions) -> dict[AnyPath, Path]:
        """Return every file and the folder of its results; two never share one."""
        folders: dict[AnyPath, Path] = {}
        taken: set[PurePath] = set()
        for source in sources:
            for path in expand(source, exclusions, self.output):
                assert isinstance(path, Path | RemotePath)
                # A folder's entries are below it; a file is its own.
                inside = PurePath(path.name) if path == source else _inside(path, source)
                folder = inside.with_suffix("")
                number = 2
                while folder in taken:
                    folder = inside.with_name(f"{inside.stem}-{number}")
                    number += 1
                taken.add(folder)
                folders[path] = self.output / folder
        # Queries of addresses, which may be signatures, are not part of names.
        if len({str(path) for path in folders}) < len(folders):
            raise ValueError("predict: two addresses differ in their query alone; name one at once")
        return folders

    def _written(
        self,
        results: Iterator[PredictionResult],
        folders: dict[AnyPath, Path],
        output: OutputFolder,
        summary: Summary,
    ) -> Iterator[PredictionResult]:
        """Write each result on arrival and yield it."""
        by_name = {str(path): folder for path, folder in folders.items()}
        for result in results:
            folder = by_name[result.name]
            output.note(folder)
            if self.draw is not None:
                write_bytes(folder / "drawing.jpg", encode_jpeg(result.draw(self.draw)))
            write_json(folder / "heads.json", result.to_json())
            self._write_extras(result, folder)
            summary.add(result)
            yield result

    def _write_video(
        self,
        results: Iterator[PredictionResult],
        folder: Path,
        summary: Summary,
        *,
        live: bool = False,
    ) -> None:
        """Write a line of JSON a frame, and a video of drawings that keeps the frames' times."""
        opening = list(islice(results, 2))
        if not opening:  # not readable: a row of the exclusions
            return
        times = [result.time_s or 0.0 for result in opening]
        rate = 1.0 / (times[1] - times[0]) if len(times) > 1 and times[1] > times[0] else 25.0
        with (
            atomic_write(folder / "heads.jsonl") as lines,
            lines.open("w") as text,
            self._video(folder / "drawing.mp4", rate) as append,
        ):
            try:
                for result in chain(opening, results):
                    append(result)
                    line = json.dumps(result.to_json(), sort_keys=True, allow_nan=False)
                    text.write(line + "\n")
                    number = result.name.rpartition("#")[2]
                    self._write_extras(result, folder / f"frame-{number}")
                    summary.add(result)
            except KeyboardInterrupt:
                if not live:
                    raise
                # Ctrl-C stops a camera: the frames so far are the result.
                summary.stopped = True

    @contextmanager
    def _video(self, path: Path, rate: float) -> Iterator[Callable[[PredictionResult], None]]:
        """Yield the writer of a video of drawings, or None if not requested."""
        draw = self.draw
        if draw is None:
            yield lambda result: None
            return
        with atomic_write(path) as file, video_writer(file, rate) as append:
            yield lambda result: append(result.draw(draw), result.time_s or 0.0)

    def _write_extras(self, result: PredictionResult, folder: Path) -> None:
        for form in self.meshes:
            result.save_meshes(folder, form, self.unit)
        if self.pncc:
            write_bytes(folder / "pncc.png", encode_png(result.pncc()))
        if self.crops is not None:
            for index, crop in enumerate(result.aligned_heads(self.crops or None)):
                write_bytes(folder / f"head_{index}.jpg", encode_jpeg(crop.image_rgb))


def _inside(path: AnyPath, folder: AnyPath) -> PurePath:
    """Return the names of a file below a folder."""
    if isinstance(path, RemotePath):
        assert isinstance(folder, RemotePath)
        return path.relative_to(folder)
    return path.relative_to(str(folder))
