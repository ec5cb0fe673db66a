"""Every reader of files from outside, with whole files of its kind and the one error it may raise.

`tests.test_doors` throws damaged files at each of them; `python -m tests.doors 1000` throws more,
and prints of each door how many were refused and taken, the time, and its process's most memory.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.sparse import csc_matrix

from tests.malformed import damaged_bytes

Files = list[tuple[str, bytes]]
MAX_MEGABYTES = 2048


@dataclass(frozen=True)
class Door:
    """A reader.

    Attributes:
        read: takes the path of a file.
        errors: all that may leave it.
        files: suffix and content of whole files that it takes.
        rebuild: puts damaged content into a whole container around it, past its checksums.
        count: how many items there are in what it returned.
        given: how many items there are in content that it takes, damaged or not.
    """

    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    files: Callable[[], Files]
    rebuild: Callable[[bytes], bytes] = bytes
    count: Callable[[Any], int] = lambda result: 0
    given: Callable[[bytes], int] = lambda data: 0


def image_files() -> Files:
    """Small images in every format, with alpha, text chunks and profiles."""
    rgb = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    rgba = np.dstack([rgb, rgb[:, :, 0]])
    text = PngInfo()
    text.add_text("a", "b" * 100, zip=True)
    text.add_itxt("x", "y" * 100, zip=True)
    wanted = [
        (rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True}), (rgb, "PNG", {"pnginfo": text}),
        (rgba, "PNG", {}), (rgb, "WEBP", {}), (rgba, "WEBP", {"lossless": True}), (rgb, "BMP", {}),
        (rgb, "TIFF", {}), (rgba, "TIFF", {"compression": "tiff_lzw"}), (rgb, "GIF", {}),
        (rgb, "TIFF", {"compression": "jpeg"}), (rgba, "GIF", {}), (rgba, "AVIF", {}),
        (rgb, "JPEG2000", {}), (rgb, "PPM", {}),
    ]  # fmt: skip
    files = []
    for pixels, form, options in wanted:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, form, **options)
        files.append((f".{form.lower()}", out.getvalue()))
    out = io.BytesIO()
    Image.fromarray(rgb).quantize().save(out, "PNG", transparency=3, icc_profile=b"x" * 600)
    return [*files, (".png", out.getvalue())]


def checkpoint_pickle() -> Files:
    """The pickle in a checkpoint, without the archive around it."""
    out = io.BytesIO()
    net = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}
    torch.save({"net": net, "epoch": 3, "acc": {"map": [0.1, 0.2]}}, out)
    with zipfile.ZipFile(io.BytesIO(out.getvalue())) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        return [(".pth", archive.read(name))]


def checkpoint_around(content: bytes) -> bytes:
    """An archive around a pickle, with two storages."""
    from tests.bombs import torch_zip

    return torch_zip(content, {"0": np.arange(12, dtype=np.float32).tobytes(), "1": bytes(12)})


def checkpoint_files() -> Files:
    """A whole checkpoint."""
    return [(".pth", checkpoint_around(checkpoint_pickle()[0][1]))]


def pickled_masks() -> Files:
    """FLAME_masks.pkl in the protocols that occur."""
    masks = {"face": np.arange(40), "left_ear": np.arange(7, dtype=np.int64)}
    return [(".pkl", pickle.dumps(masks, protocol)) for protocol in (2, 4, 5)]


def pickled_parts() -> Files:
    """Parts of a FLAME model: a sparse matrix, arrays, texts."""
    parts = {"J_regressor": csc_matrix(np.eye(4)), "f": np.zeros((2, 3), np.uint32), "bs": "lbs"}
    return [(".pkl", pickle.dumps(parts, protocol)) for protocol in (2, 4, 5)]


def _npz(**arrays: object) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def landmark_files() -> Files:
    """A landmark embedding."""
    return [(".npz", _npz(lmk_face_idx=np.arange(68), lmk_b_coords=np.full((68, 3), 1 / 3)))]


def annotation_files() -> Files:
    """An annotation of the official release."""
    boxes = np.array([[1, 2, 30, 40]] * 3, np.int32)
    params = np.zeros((3, 1, 413), np.float32)
    return [(".npz", _npz(**{"bbox": boxes, "extended_bbox": boxes, "3dmm_params": params}))]


def bare_array() -> Files:
    """One array of such a file, without the archive around it."""
    out = io.BytesIO()
    np.save(out, np.zeros((3, 1, 413), np.float32))
    return [(".npz", out.getvalue())]


def annotation_around(content: bytes) -> bytes:
    """An annotation with the given array of parameters."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(annotation_files()[0][1])) as whole,
        zipfile.ZipFile(out, "w") as archive,
    ):
        for name in ("bbox", "extended_bbox"):
            archive.writestr(f"{name}.npy", whole.read(f"{name}.npy"))
        archive.writestr("3dmm_params.npy", content)
    return out.getvalue()


def index_files() -> Files:
    """An identity index."""
    from ml.filtering.identity import INDEX_FORMAT

    return [
        (".npz", _npz(format=np.array(INDEX_FORMAT), embedder=np.array("e"),
                      embeddings=np.eye(4, 8, dtype=np.float32), sources=np.array(list("abcd"))))
    ]  # fmt: skip


def table_files() -> Files:
    """A table of exclusions."""
    from ml.records.exclusions import Exclusions
    from ml.records.tables import EXCLUSIONS, write_table

    exclusions = Exclusions("x")
    for number in range(20):
        exclusions.add(f"image-{number}", "reason", "a detail of some length")
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "t.parquet", exclusions.to_frame(), EXCLUSIONS)
        return [(".parquet", (Path(folder) / "t.parquet").read_bytes())]


def tar_files() -> Files:
    """A shard, a tar with long names and extended headers, and a compressed one."""
    import tarfile

    files = []
    for mode, form in (("w", 0), ("w", 1), ("w", 2), ("w:gz", 1), ("w:xz", 1), ("w:bz2", 1)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=form) as tar:
            for name in ("a.jpg", "a.json", "b.jpg") + (() if form == 0 else ("ü" * 150 + ".jpg",)):
                info = tarfile.TarInfo(name)
                info.size = 700
                tar.addfile(info, io.BytesIO(b"x" * 700))
        files.append((".tar", out.getvalue()))
    return files


def coco_file() -> Files:
    """Boxes as labelling tools write them."""
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "head"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [n, 2, 5.5, 6], "area": 33.0}
            for n in range(4)
        ],
    }
    return [(".json", json.dumps(content).encode())]


def yaml_files() -> Files:
    """Values as in params.yaml, with an alias, and a dvc.lock."""
    values = b"run: &run {seed: 1, workers: 2}\nposes: {<<: *run, fraction: 0.5, names: [a, b]}\n"
    return [(".yaml", values), *lock_file()]


def lock_file() -> Files:
    """DVC's records of two stages."""
    out = {"path": "data/a", "hash": "md5", "md5": "0" * 32 + ".dir", "size": 3, "nfiles": 1}
    stage = {"cmd": "make a", "params": {"params.yaml": {"run.seed": 1}}, "outs": [out]}
    content = {"schema": "2.0", "stages": {"a": stage, "b": {**stage, "deps": [out]}}}
    return [("", json.dumps(content, indent=1).encode())]


def film_files() -> Files:
    """A film of some frames in two containers."""
    from ml.inference.videos import video_writer

    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8)
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".mkv"):
            path = Path(folder) / f"film{suffix}"
            with video_writer(path, 5.0) as write:
                for number, frame in enumerate(frames):
                    write(frame, number / 5)
            files.append((suffix, path.read_bytes()))
    return files


def _watch(path: Path) -> int:
    from ml.inference.videos import read_frames

    lost: list[str] = []
    return all_there(sum(1 for _ in read_frames(path, lost.append)), 6, lost)


def _walk(path: Path) -> int:
    from ml.records.tars import TarReader

    seen = 0
    with TarReader(path, stream=True) as tar:
        for member in tar:
            seen += 1
            if not member.problem:
                tar.read()
    return all_there(seen, 3, _is_padding(path))


def _is_padding(path: Path) -> bool:
    """Return whether a file is all zeros, which is a whole tar without members."""
    return not any(path.read_bytes())


def all_there(seen: int, written: int, told: object = None) -> int:
    """Return the number of returned parts of a file, if no part is lost silently.

    Raises:
        AssertionError: some are.
    """
    if seen < written and not told:
        raise AssertionError(f"{seen} of {written}, and nothing said")
    return seen


def doors() -> dict[str, Door]:
    """All of them by name."""
    from dagster_project.dvc_sync import DamagedLock, read_lock
    from ml.filtering.identity import IdentityError, IdentityIndex
    from ml.flame.flame_file import read_flame_file, read_masks
    from ml.flame.head_model import HeadModel
    from ml.flame.landmark_files import read_landmarks
    from ml.flame.safe_pickle import FlameFileError
    from ml.imaging.io import UnreadableImage, decode_image
    from ml.inference.loading import read_detector
    from ml.inference.runtimes import UnusableModel
    from ml.labels.coco import CocoError, read_coco
    from ml.model.checkpoint_file import UnusableCheckpoint, read_checkpoint_tensors
    from ml.records.config import parse_yaml
    from ml.records.shards import ShardReader
    from ml.records.tables import EXCLUSIONS, TableError, read_table
    from ml.records.tars import DamagedTar

    def indexed(path: Path) -> object:
        with ShardReader(path) as reader:
            return all_there(len(reader.keys()), 2, reader.damage or _is_padding(path))

    official = annotation_door()
    return {
        "image": Door(decode_image, (UnreadableImage,), image_files),
        "checkpoint": Door(
            read_checkpoint_tensors,
            (UnusableCheckpoint,),
            checkpoint_files,
            count=len,
            given=lambda data: 2,
        ),
        "checkpoint pickle": Door(
            read_checkpoint_tensors,
            (UnusableCheckpoint,),
            checkpoint_pickle,
            checkpoint_around,
            count=len,
            given=lambda data: 2,
        ),
        "detector": Door(read_detector, (UnusableModel,), checkpoint_files),
        "FLAME masks": Door(
            read_masks, (FlameFileError,), pickled_masks, count=len, given=lambda data: 2
        ),
        "FLAME model": Door(read_flame_file, (FlameFileError,), pickled_parts),
        "landmarks": Door(read_landmarks, (FlameFileError,), landmark_files),
        "head model": Door(HeadModel.load, (ValueError,), landmark_files),
        "annotation": official,
        "annotation array": replace(official, files=bare_array, rebuild=annotation_around),
        "identity index": Door(
            IdentityIndex.load,
            (IdentityError,),
            index_files,
            count=lambda index: len(index.embeddings),
            given=lambda data: 4,
        ),
        "table": Door(
            lambda path: read_table(path, EXCLUSIONS),
            (TableError,),
            table_files,
            count=len,
            given=lambda data: 20,
        ),
        "tar": Door(_walk, (DamagedTar,), tar_files),
        "shard": Door(indexed, (DamagedTar,), lambda: tar_files()[:1]),
        "COCO": Door(
            read_coco,
            (CocoError,),
            coco_file,
            count=lambda data: len(data.images) + len(data.boxes),
            given=lambda data: 5,
        ),
        "values": Door(lambda path: parse_yaml(path.read_text("utf-8")), (ValueError,), yaml_files),
        "dvc.lock": Door(read_lock, (DamagedLock,), lock_file, count=len, given=lambda data: 2),
        "film": Door(_watch, (UnreadableImage,), film_files),
    }


def annotation_door() -> Door:
    """The reader of the official release's annotations."""
    from ml.release.official import BadAnnotation, decode_annotation

    return Door(
        decode_annotation, (BadAnnotation,), annotation_files,
        count=lambda heads: len(heads.params), given=lambda data: 3,
    )  # fmt: skip


def knock(name: str, door: Door, count: int, folder: Path) -> Counter[str]:
    """Give damaged files to a reader; anything but its own error goes up.

    Args:
        name: the door's, which seeds the damage.
        door: the reader.
        count: how many files.
        folder: where to put them.

    Returns:
        How many were taken and how many refused, with words or mute or with endless ones.
    """
    files, found = door.files(), Counter[str]()
    for number in range(count):
        suffix, whole = files[number % len(files)]
        rng = np.random.default_rng([sum(name.encode()), number])
        path = folder / f"damaged{suffix}"
        path.write_bytes(door.rebuild(damaged_bytes(whole, rng)))
        try:
            all_there(door.count(door.read(path)), door.given(path.read_bytes()))
            found["taken"] += 1
        except door.errors as error:
            found["refused"] += 1
            found["mute" if len(str(error)) < 10 else "words"] += 1
            found["endless"] += len(str(error)) > 2000
    return found


def _refuse_to_run(event: str, arguments: tuple[object, ...]) -> None:
    """Stop at once when a reader starts a program: nothing that is read may."""
    if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"):
        raise SystemExit(f"a reader ran {event} {arguments}")


def all_doors() -> dict[str, Door]:
    """Those of labels, releases, models and public benchmarks too."""
    from tests import doors_of_sets
    from tests.ml.benchmarks.test_doors import DOORS

    return {**doors(), **doors_of_sets.doors(), **DOORS}


def _knock_alone(name: str, count: int) -> tuple[str, Counter[str], float, int, str]:
    """Run one reader in a separate process, to measure its memory."""
    sys.addaudithook(_refuse_to_run)
    started, found, escaped = time.monotonic(), Counter[str](), ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = knock(name, all_doors()[name], count, Path(folder))
        except SystemExit as error:
            escaped = str(error)
        except Exception as error:  # noqa: BLE001 - what is looked for: any other than the declared
            escaped = f"{type(error).__name__}: {error}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return name, found, time.monotonic() - started, peak, escaped


def main(arguments: list[str] | None = None) -> int:
    """Knock at every door; returns 1 when something escaped, took too much memory or ran."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("count", nargs="?", type=int, default=1000, help="files a door")
    parser.add_argument("--door", action="append", help="only this one")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="doors at the same time")
    options = parser.parse_args(arguments)
    names = options.door or list(all_doors())
    good = True
    # A fresh process each; forked, for imports are most of what a new one would do.
    with get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        calls = [(name, options.count) for name in names]
        for name, found, seconds, peak, escaped in pool.imap(_call, calls, chunksize=1):
            fine = not (escaped or found["mute"] or found["endless"]) and peak <= MAX_MEGABYTES
            good &= fine
            told = f"; mute {found['mute']}, endless {found['endless']}" if not fine else ""
            sys.stdout.write(
                f"| {name} | {found['refused']} | {found['taken']} | {seconds:.1f} s | {peak} MB |"
                f"{f' ESCAPED {escaped}' if escaped else ''}{told}\n"
            )
            sys.stdout.flush()
    return int(not good)


def _call(arguments: tuple[str, int]) -> tuple[str, Counter[str], float, int, str]:
    return _knock_alone(*arguments)


if __name__ == "__main__":
    sys.exit(main())
