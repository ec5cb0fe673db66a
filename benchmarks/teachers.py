"""Teachers of FLAME parameters on heads whose parameters the renderer knows exactly.

    python -m benchmarks.teachers [--project DIR] [--points 68 105] [--noise 0 1 2]

Held-out crops of a project whose stages crops and flame_regressor have run: the crop regressor sees
the images; the fit sees the exact 2D landmarks, moved by Gaussian noise, so that it is measured
without any landmark model. Noise is stated in pixels of the 256 px crop that landmark models see,
or with --frame image in pixels of the image; the fit is given its size, and never less than its
default. The 105 points are spread evenly over the front of the face. With --random the heads are
drawn from the priors and there is no regressor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import parser_of, start
from ml.annotation.crop_data import load_crops
from ml.annotation.estimates import cut_crops
from ml.annotation.landmark_fit import LandmarkFitConfig, SurfacePoints, fit_landmarks
from ml.annotation.regressor import MirroredRegressor, load_regressor
from ml.evaluation.metrics import (
    aligned_error,
    component_correlation,
    geodesic_deg,
    nme_bbox,
)
from ml.evaluation.protocol import LEADING
from ml.flame.frames import BOX_MARGIN, crop_to_image, square_frames
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import Points
from ml.flame.open_head import build_open_head
from ml.flame.params import EXPRESSION, JAW, ROTATION, SCALE, SHAPE, SHIFT_XY, split
from ml.flame.projection import project_flame
from ml.flame.rotation import FRONTAL_6D, matrix_from_euler_deg, sixd_from_matrix
from ml.records.exclusions import Exclusions
from ml.records.workspace import Workspace

CROP_PX = 256
MISPLACED = 0.1
"""Fraction of the landmarks that the row of misplaced ones puts elsewhere in the crop."""


@dataclass(frozen=True)
class Truth:
    """Heads with exact parameters.

    Attributes:
        flame: (N, 413) image frame.
        boxes_xyxy: (N, 4) image px.
    """

    flame: np.ndarray
    boxes_xyxy: np.ndarray


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--project", type=Path, default=Path(), help="folder with data/")
    parser.add_argument("--random", type=int, help="so many heads of the priors, no project")
    parser.add_argument("--heads", type=int, default=200, help="at most so many held-out heads")
    parser.add_argument("--points", type=int, nargs="*", default=[68, 105], choices=(68, 105))
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0, 1.0, 2.0], help="px")
    parser.add_argument("--frame", choices=("crop", "image"), default="crop")
    parser.add_argument("--iterations", type=int, default=LandmarkFitConfig().iterations)
    options = parser.parse_args()
    start(threads=1)
    if options.random:
        head_model = build_open_head(0)
        truth = random_heads(options.random)
        rows: list[Any] = []
    else:
        head_model = HeadModel.load(options.project / "data" / "head_model" / "head_model.npz")
        truth, rows = held_out(options.project, options.heads, head_model)
    geometry = HeadGeometry(head_model)
    side = np.sqrt(np.prod(truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2], axis=1))
    print(f"heads:    {len(truth.flame)}, boxes of {side.mean():.0f} px\n")
    print("| teacher | noise | rotation, deg | NME, % | nme_aligned, % | shape | expression | "
          "jaw | no fit | CPU ms a head |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = [("always frontal, mean head", "", mean_head(truth.flame), 0.0), *rows]
    for teacher, noise, flame, seconds in chain(rows, fits(truth, head_model, options)):
        print(row(teacher, noise, flame, truth.flame, geometry, seconds), flush=True)


def random_heads(count: int) -> Truth:
    """Draw heads of the priors, turned by up to 60 degrees, 160 px high."""
    rng = np.random.default_rng(0)
    flame = np.zeros((count, 413), np.float32)
    flame[:, SHAPE] = rng.normal(size=(count, 300))
    flame[:, EXPRESSION] = rng.normal(size=(count, 100))
    flame[:, JAW.start] = rng.uniform(0, 0.3, count)
    angles = rng.uniform(-1, 1, (count, 3)) * [30, 60, 20]
    flame[:, ROTATION] = sixd_from_matrix(matrix_from_euler_deg(torch.from_numpy(angles))).numpy()
    flame[:, SHIFT_XY], flame[:, SCALE] = 128.0, 640.0
    boxes = np.tile(np.array([48, 48, 208, 208], np.float32), (count, 1))
    return Truth(flame, boxes)


def held_out(
    project: Path, most: int, head_model: HeadModel
) -> tuple[Truth, list[tuple[str, str, np.ndarray, float]]]:
    """Read the held-out crops of a project, and ask its crop regressor about them."""
    ws = Workspace(project, seed=0, num_shards=1, shard_size=1)
    crops = load_crops(ws, "val", Exclusions("benchmark"))
    truth = Truth(crops.flame[:most], crops.boxes_xyxy[:most])
    regressor = MirroredRegressor(load_regressor(ws.stage_dir("flame_regressor")), head_model)
    images = crops.images_rgb[:most]
    begun = time.process_time()
    cuts = [
        cut_crops(regressor, image, box[None])
        for image, box in zip(images, truth.boxes_xyxy, strict=True)
    ]
    pixels, frames = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
    said = regressor.predict(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    flame = crop_to_image(said, frames, regressor.crop_size)
    seconds = time.process_time() - begun
    return truth, [("crop regressor, images", "", flame, seconds)]


def fits(
    truth: Truth, head_model: HeadModel, options: argparse.Namespace
) -> Iterator[tuple[str, str, np.ndarray, float]]:
    """Fit to 68 and 105 landmarks at each noise, and with misplaced landmarks."""
    frames = square_frames(truth.boxes_xyxy, BOX_MARGIN)
    zoom = CROP_PX / frames[:, 2] if options.frame == "crop" else np.ones(len(frames))
    places: dict[int, Callable[[], Points]] = {
        68: lambda: (head_model.landmark_faces, head_model.landmark_barycentric),
        105: lambda: spread_points(head_model, 105),
    }
    for count in options.points:
        surface = SurfacePoints(head_model, places[count]())
        exact = landmarks_px(truth.flame, surface)
        for noise in options.noise:
            rng = np.random.default_rng(int(1000 * noise) + count)
            moved = exact + rng.normal(size=exact.shape) * (noise / zoom)[:, None, None]
            mm = 1000 * float(np.mean(noise / zoom / truth.flame[:, SCALE.start]))
            yield fit(f"fit, {count} landmarks", noise, mm, moved, surface, frames, options)
        rng = np.random.default_rng(count)
        elsewhere = frames[:, None, :2] + rng.random(exact.shape) * frames[:, None, 2:]
        wrong = rng.random(exact.shape[:2]) < MISPLACED
        moved = np.where(wrong[..., None], elsewhere, exact)
        name = f"fit, {count} landmarks, {MISPLACED:.0%} of them anywhere"
        yield fit(name, 0.0, 0.0, moved, surface, frames, options)


def fit(
    name: str,
    noise: float,
    noise_mm: float,
    landmarks: np.ndarray,
    surface: SurfacePoints,
    frames: np.ndarray,
    options: argparse.Namespace,
) -> tuple[str, str, np.ndarray, float]:
    """Return one row: the fit in the frame of the 256 px crops, as a landmark model sees them."""
    default = LandmarkFitConfig(iterations=options.iterations)
    config = default.model_copy(update={"noise_mm": max(default.noise_mm, noise_mm)})
    zoom = CROP_PX / frames[:, 2]
    crop_px = (landmarks - frames[:, None, :2]) * zoom[:, None, None]
    begun = time.process_time()
    flame = fit_landmarks(torch.from_numpy(crop_px.astype(np.float32)), surface, config).flame
    seconds = time.process_time() - begun
    said = f"{noise:g} px ({noise_mm:.1f} mm)"
    return name, said, crop_to_image(flame, frames, CROP_PX), seconds


def landmarks_px(flame: np.ndarray, surface: SurfacePoints) -> np.ndarray:
    """Return exact landmarks (N, P, 2), image px."""
    heads = torch.from_numpy(np.asarray(flame, np.float64))
    parts = split(heads)
    with torch.inference_mode():
        points = project_flame(surface(parts.shape, parts.expression, parts.jaw), heads)
    return points[..., :2].numpy()


def spread_points(head_model: HeadModel, count: int) -> Points:
    """Choose vertices of the face's front, each as far from those before it as can be."""
    faces = head_model.faces_of("face")
    template = head_model.v_template
    normals = np.cross(
        template[faces[:, 1]] - template[faces[:, 0]], template[faces[:, 2]] - template[faces[:, 0]]
    )
    front = faces[normals[:, 2] > 0.5 * np.linalg.norm(normals, axis=1)]
    places = template[front[:, 0]]
    chosen, nearest = [0], np.full(len(places), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(places - places[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    numbers = {tuple(corners): i for i, corners in enumerate(head_model.faces.tolist())}
    triangles = np.array([numbers[tuple(front[i].tolist())] for i in chosen], np.int32)
    return triangles, np.tile(np.array([1, 0, 0], np.float32), (count, 1))


def mean_head(true: np.ndarray) -> np.ndarray:
    """Put the frontal mean head where the true one is, in its size."""
    flame = np.zeros_like(true)
    flame[:, ROTATION] = FRONTAL_6D
    flame[:, SHIFT_XY], flame[:, SCALE] = true[:, SHIFT_XY], true[:, SCALE]
    return flame


def row(
    teacher: str,
    noise: str,
    flame: np.ndarray,
    true: np.ndarray,
    geometry: HeadGeometry,
    seconds: float,
) -> str:
    """Return a row of the table; heads without a fit count as such alone."""
    there = np.isfinite(flame).all(axis=1)
    said, known = flame[there], true[there]
    rotation = geodesic_deg(geometry.rotations(said), geometry.rotations(known))
    nme = nme_bbox(geometry.vertices_px(said), geometry.vertices_px(known))
    shape = geometry.canonical_vertices(known)
    aligned = aligned_error(geometry.canonical_vertices(said), shape)
    correlations = [
        component_correlation(said[:, part], known[:, part])
        for part in (
            slice(SHAPE.start, SHAPE.start + LEADING),
            slice(EXPRESSION.start, EXPRESSION.start + LEADING),
            slice(JAW.start, JAW.start + 1),
        )
    ]
    values = [
        f"{rotation.mean():.1f}",
        f"{nme.mean():.2f}",
        f"{aligned.mean():.2f}",
        *(f"{value:.2f}" for value in correlations),
        f"{(~there).mean():.1%}",
        f"{1000 * seconds / len(true):.1f}" if seconds else "",
    ]
    return f"| {teacher} | {noise} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
