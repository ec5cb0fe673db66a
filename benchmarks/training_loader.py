"""Images per second of a training's loader: decoded from shards each time, and from memory.

    python -m benchmarks.training_loader
    python -m benchmarks.training_loader --images 512 --repeats 9 --workers 0 2

The demo's loader (256 px, batches of 8, mosaics, augmentation) over synthetic images in shards of
80. `--mosaic 0` leaves mosaics out, which decode several images for one. Both ways in turn. The
processor time of this process does not depend on other load; with loader processes, it is not all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from benchmarks.report import parser_of, start
from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions
from ml.records.shards import shard_writer
from ml.stages.trained_model import TrainedModelConfig
from ml.training_data.datamodule import HeadDataModule
from ml.training_data.labels import HeadLabels
from ml.training_data.samples import HeadSamples

ROOT = Path(__file__).parents[1]
SHARD = 80


def main() -> None:
    """Print images per second, both ways."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--side", type=int, default=256, help="side of a stored image, px")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    parser.add_argument("--mosaic", type=float, help="probability; default: the demo's")
    options = parser.parse_args()
    start(threads=1)
    print("\n| processes | | images/s | processor ms per image |")
    print("|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ids, tars = write_shards(Path(folder), options.images, options.side)
        labels = {name: heads(number, options.side) for number, name in enumerate(ids)}
        for workers in options.workers:
            ways = [
                loader(ids, tars, labels, cache_mb, workers, options.mosaic)
                for cache_mb in (4096, 0)
            ]
            found: tuple[list[tuple[float, float]], ...] = ([], [])
            for repeat in range(options.repeats + 1):
                for way, measured in zip(ways, found, strict=True):
                    one = one_epoch(way, repeat)
                    if repeat:  # the first opens shards and starts processes
                        measured.append(one)
            memory, shards = (np.array(measured).T for measured in found)
            for name, rows in (("from memory", memory), ("from shards", shards)):
                print(
                    f"| {workers} | {name} | {spread(1 / rows[0])} | {spread(1000 * rows[1], 2)} |"
                )
            ratio = memory / shards
            print(
                f"| {workers} | shards / memory, speed | {spread(ratio[0], 2)} "
                f"| {spread(ratio[1], 2)} |",
                flush=True,
            )


def write_shards(folder: Path, count: int, side: int) -> tuple[list[str], list[Path]]:
    """Write smooth coloured noise, whose JPEGs are about as large as renderings."""
    rng = np.random.default_rng(0)
    ids, tars = [], []
    for first in range(0, count, SHARD):
        tar = folder / f"shard-{first // SHARD:05d}.tar"
        with shard_writer(tar) as writer:
            for number in range(first, min(count, first + SHARD)):
                coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
                image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
                writer.add(f"image-{number:05d}", {"jpg": encode_jpeg(image)})
                ids.append(f"image-{number:05d}")
                tars.append(tar)
    return ids, tars


def heads(number: int, side: int) -> HeadLabels:
    """Return three heads of an image."""
    rng = np.random.default_rng(number)
    low = rng.uniform(0, 0.7 * side, (3, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + rng.uniform(20, 70, (3, 1)).astype(np.float32)], axis=1)
    flame = np.zeros((3, 413), np.float32)
    flame[:, [403, 407]] = (1, -1)
    flame[:, 409:411] = (boxes[:, :2] + boxes[:, 2:]) / 2
    flame[:, 412] = 120
    outlines = np.repeat(boxes.reshape(3, 2, 2), 16, axis=1)
    return HeadLabels(boxes, flame, np.ones(3, bool), np.zeros(3, bool), outlines)


def loader(
    ids: Sequence[str],
    tars: Sequence[Path],
    labels: dict[str, HeadLabels],
    cache_mb: int,
    workers: int,
    mosaic: float | None,
) -> HeadDataModule:
    """Return the demo's loader with so large a cache, filled as before a training."""
    section = yaml.safe_load((ROOT / "conf" / "demo.yaml").read_text())["trained_model"]
    config = TrainedModelConfig.model_validate(section)
    changes: dict[str, object] = {"num_workers": workers, "cache_mb": cache_mb}
    if mosaic is not None:
        changes["mosaic"] = config.loader.mosaic.model_copy(update={"probability": mosaic})
    own = config.loader.model_copy(update=changes)
    samples = HeadSamples(ids, tars, labels, cache_mb << 20)
    samples = samples.without_damaged(Exclusions("benchmark"), beyond_cache=False)
    augment = config.augment.model_copy(update={"flip": 0.0})  # needs a head model
    return HeadDataModule(samples, samples, own, config.limits, augment, 0, "benchmark")


def one_epoch(data: HeadDataModule, epoch: int) -> tuple[float, float]:
    """Return wall and processor seconds per image of an epoch, its start included."""
    batches = data.train_dataloader()
    batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    started = time.perf_counter(), time.process_time()
    count = sum(len(batch.sample_ids) for batch in batches)
    return (time.perf_counter() - started[0]) / count, (time.process_time() - started[1]) / count


def spread(values: np.ndarray, digits: int = 0) -> str:
    """Return median, least and most."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
