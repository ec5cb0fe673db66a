"""Errors by skin tone on the same heads: what of a difference is the tone, what is the heads.

    python -m benchmarks.skin_tones                  # the finished project in this folder
    python -m benchmarks.skin_tones --tones 1 10 --split val

Groups of a benchmark differ in more than skin: its few dark heads may be the smaller ones. Here
the renderer makes every held-out image again in each tone, and nothing else changes: pose, face,
hair, clothes, light, noise and JPEG quality have the seeds of the stage `images`. The first table
has the same heads in every tone; in the second, heads are grouped by the tone that they had, and
all drawn in one. A tone matters if the first table differs by rows, sampling if the second does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.report import parser_of, start
from dagster_project.stages import project
from ml.evaluation.groups import EDGES
from ml.evaluation.metrics import bootstrap_intervals
from ml.evaluation.protocol import Evaluation, EvaluationSample
from ml.evaluation.samples import read_samples
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
from ml.stages.images import make_requests

ERRORS = {"rotation deg": "rotation_deg", "NME %": "nme_bbox"}
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
    print("\n".join(by_tone(found)), "\n", flush=True)
    middle = sorted(found)[len(found) // 2]
    print(f"All drawn in tone {middle}, by the tone that they had:\n")
    print("\n".join(by_origin(found[middle])))


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
                low, high = config.jpeg_quality_min, config.jpeg_quality_max
                quality = int(request.rng.integers(low, high + 1))
                yield wanted[request.sample_id], encode_jpeg(image.image_rgb, quality)


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


def by_tone(found: dict[int, Evaluation]) -> list[str]:
    """Return the table of the same heads in every tone.

    Errors are of heads that are found in all tones, so that rows differ by tone alone.
    """
    keys = ["image", "truth"]
    common = None
    for evaluation in found.values():
        index = pd.MultiIndex.from_frame(evaluation.pairs[keys])
        common = index if common is None else common.intersection(index)
    assert common is not None
    lines = [
        f"| tone of all heads | found | {' | '.join(ERRORS)} |", "|---|---|" + "---|" * len(ERRORS),
    ]  # fmt: skip
    for tone, evaluation in found.items():
        shared = evaluation.pairs.set_index(keys).loc[common].reset_index()
        cells = [_interval(shared, column, evaluation.num_images) for column in ERRORS.values()]
        share = 100.0 * float(evaluation.asked["found"].mean())
        lines.append(f"| {tone} | {share:.1f} % | {' | '.join(cells)} |")
    return [*lines, "", f"Errors of the {len(common)} heads that are found in every tone."]


def by_origin(evaluation: Evaluation) -> list[str]:
    """Return the table of one tone, by groups of the tones that the heads had."""
    lines = [
        f"| tone before | heads | {' | '.join(ERRORS)} |", "|---|---|" + "---|" * len(ERRORS),
    ]  # fmt: skip
    edges = EDGES["skin_tone"]
    for low, high in pairwise(edges):
        pairs = evaluation.pairs
        group = pairs[pairs["skin_tone"].between(low, high - 1)]
        cells = [_interval(group, column, evaluation.num_images) for column in ERRORS.values()]
        lines.append(f"| {low:g} to {high - 1:g} | {len(group)} | {' | '.join(cells)} |")
    return lines


def _interval(pairs: pd.DataFrame, column: str, num_images: int) -> str:
    """Return a mean with its interval."""
    sums = (
        pairs.groupby("image")[column].agg(["sum", "size"])
        .reindex(range(num_images)).fillna(0).to_numpy()
    )  # fmt: skip

    def mean(draw: np.ndarray) -> dict[str, float]:
        total, count = sums[draw].sum(axis=0)
        return {column: float(total / count) if count else float("nan")}

    low, high = bootstrap_intervals(mean, num_images, np.random.default_rng(0), RESAMPLES)[column]
    return f"{pairs[column].mean():.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
