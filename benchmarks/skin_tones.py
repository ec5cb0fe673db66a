"""Errors by skin tone on the same heads: is a difference due to the tone or to the heads?

    python -m benchmarks.skin_tones                  # the finished project in this folder
    python -m benchmarks.skin_tones --tones 1 10 --split val

Groups of a benchmark differ in more than skin: its few dark heads may be the smaller ones. Here
the renderer makes every held-out image again in each tone, and nothing else changes: pose, face,
hair, clothes, light, noise and JPEG quality have the seeds of the stage `images`. The first table
shows the same heads in every tone. In the second all heads have one tone, and are grouped by the
tone that they have in the dataset: differences that remain there are not due to the tone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.report import parser_of, start
from dagster_project.stages import project
from ml.dataset.card import markdown_table
from ml.evaluation.groups import (
    ERRORS,
    group_intervals,
    group_names,
    group_of,
    with_interval,
)
from ml.evaluation.protocol import Evaluation, EvaluationSample
from ml.evaluation.samples import has_truth, read_samples
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.generation.backends import GENERATORS
from ml.generation.config import ImagesConfig
from ml.generation.generator import NotGenerated
from ml.generation.renderer import heads
from ml.generation.renderer.materials import MONK_TONES_SRGB, skin_albedo
from ml.imaging.io import decode_image, encode_jpeg
from ml.inference.loading import load_detector
from ml.records.exclusions import Exclusions
from ml.records.tables import CAPTIONS, POSES, read_table
from ml.records.workspace import Workspace
from ml.stages.benchmark import BenchmarkConfig, evaluate_batches
from ml.stages.images import draw_quality, make_requests

RESAMPLES = 500


def main() -> None:
    """Print both tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--tones", type=int, nargs="+", default=range(1, len(MONK_TONES_SRGB) + 1))
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, help="use only the first images")
    options = parser.parse_args()
    start()
    pipeline = project()
    ws = pipeline.workspace()
    values = pipeline.effective_values()
    config, images = BenchmarkConfig(**values["benchmark"]), ImagesConfig(**values["images"])
    samples = read_samples(ws, options.split, config.limits, Exclusions("benchmark"))
    samples = samples[: options.images]
    if not samples or not has_truth(ws):
        raise SystemExit(f"split {options.split}: no image with the renderer's ground truth")
    geometry = HeadGeometry(HeadModel.load(ws.stage_dir("head_model") / "head_model.npz"))
    model = load_detector(ws.stage_dir("trained_model"))
    check_same(ws, images, samples)
    found = {}
    for tone in options.tones:
        drawn = [
            replace(sample, image=partial(decode_image, encoded))
            for sample, encoded in redraw(ws, images, samples, tone)
        ]
        found[tone] = evaluate_batches({"model": model}, drawn, geometry, config)["model"]
    print(f"\n{len(samples)} images; 95 % intervals over the images\n")
    print(markdown_table(by_tone(found)), "\n", flush=True)
    middle = sorted(found)[len(found) // 2]
    print(f"All heads in tone {middle}, by their tone in the dataset:\n")
    print(markdown_table(by_origin(found[middle])))


def redraw(
    ws: Workspace, config: ImagesConfig, samples: Sequence[EvaluationSample], tone: int | None
) -> Iterator[tuple[EvaluationSample, bytes]]:
    """Yield images as the stage makes them, with all skin in one tone.

    Args:
        ws: the workspace, with the renderer's images.
        config: the stage's configuration.
        samples: which images.
        tone: Monk tone, 1 to 10; each head's own if none.

    Yields:
        Sample and JPEG, in order of shard and image.
    """
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    generator = GENERATORS[config.backend](head_model, config, ws.root)
    wanted = {sample.sample_id: sample for sample in samples}
    for shard in ws.shards:
        poses = read_table(ws.table_path("poses", shard), POSES)
        captions = read_table(ws.table_path("captions", shard), CAPTIONS)
        requests = make_requests(
            ws, poses, captions[captions["sample_id"].isin(wanted)], Exclusions("images")
        )
        for batch in generator.batches(requests):
            with patch.object(heads, "skin_albedo", partial(_albedo, tone)):
                made = generator.generate(batch)
            for request, image in zip(batch, made, strict=True):
                if isinstance(image, NotGenerated):
                    continue
                encoded = encode_jpeg(image.image_rgb, draw_quality(request, config))
                yield wanted[request.sample_id], encoded


def _albedo(tone: int | None, own: int) -> np.ndarray:
    return skin_albedo(own if tone is None else tone)


def check_same(ws: Workspace, config: ImagesConfig, samples: Sequence[EvaluationSample]) -> None:
    """Check that an image in its own tones is the dataset's.

    Raises:
        ValueError: it is another image, so that the twins would be, too.
    """
    sample, encoded = next(redraw(ws, config, samples, None))
    if not np.array_equal(decode_image(encoded), sample.image_rgb):
        raise ValueError(f"{sample.sample_id}: drawn again, it differs; remake the stage images")


def by_tone(found: Mapping[int, Evaluation]) -> pd.DataFrame:
    """Return the errors of the same heads in every tone: of those found in all of them."""
    pairs = pd.concat([e.pairs.assign(tone=tone) for tone, e in found.items()])
    pairs = pairs.groupby(["image", "truth"]).filter(lambda head: len(head) == len(found))
    table = _table(pairs, "tone", next(iter(found.values())).num_images)
    shares = [f"{100.0 * found[tone].asked['found'].mean():.1f}" for tone in table["tone"]]
    table.insert(1, "found %", shares)
    return table


def by_origin(evaluation: Evaluation) -> pd.DataFrame:
    """Return the errors in one tone, by the tones of the dataset."""
    names = np.array(group_names("skin_tone"))
    pairs = evaluation.pairs
    pairs = pairs.assign(before=names[group_of(pairs["skin_tone"])])
    return _table(pairs, "before", evaluation.num_images)


def _table(pairs: pd.DataFrame, group: str, num_images: int) -> pd.DataFrame:
    """Return a row a group: its heads and their errors with intervals over the images."""
    found = {
        label: group_intervals(pairs, group, name, num_images, np.random.default_rng(0), RESAMPLES)
        for label, name in ERRORS.items()
    }
    heads = next(iter(found.values()))["heads"].astype(int)
    columns = {label: rows.apply(with_interval, axis=1) for label, rows in found.items()}
    table = pd.DataFrame({"heads": heads, **columns})
    return table.rename_axis(group).reset_index()


if __name__ == "__main__":
    main()
