"""The distribution of a profile's heads, with the bounds of its checks; nothing is rendered.

    python -m benchmarks.world                             # the demo, 2,000 images of seed 7
    python -m benchmarks.world --world conf/worlds/any_view.yaml --images 500 --seed 8

Poses and looks are drawn as the stages do, and the mean head is projected with each pose. What
only pixels show is missing: how much of a head is hidden, and that a hat or hair widens its box.
Choose settings on a seed of their own, never on that of the images that a model is tested on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import parser_of, start
from dagster_project.params import profile_params
from dagster_project.stages import ROOT, STAGES
from ml.captions.config import CaptionsConfig
from ml.captions.grammar import compose
from ml.flame.geometry import HeadGeometry
from ml.flame.open_head import build_open_head
from ml.flame.params import NUM_PARAMETERS, ROTATION, SCALE
from ml.poses.config import PosesConfig
from ml.poses.sampler import ImplausiblePose, sample_pose
from ml.poses.skeleton import PoseSample
from ml.quality.bounds import read_bounds
from ml.quality.distributions import world_statistics
from ml.records.config import overlay, parse_yaml
from ml.records.flame_layout import SHIFT_XY
from ml.records.ids import sample_rng

SHARD = 80
GROUP = "world"
"""Section of the bounds."""


def settings(profile: str, world: Path | None) -> tuple[PosesConfig, CaptionsConfig]:
    """Return how a profile draws poses and looks, with a file of overrides laid over it."""
    values = profile_params(ROOT, profile, STAGES.values()).effective(STAGES.values())
    if world is not None:
        values = overlay(values, parse_yaml(world.read_text(encoding="utf-8"), str(world)))
    return PosesConfig(**values["poses"]), CaptionsConfig(**values["captions"])


def draw(
    poses: PosesConfig, captions: CaptionsConfig, geometry: HeadGeometry, images: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return tables of heads and images as `world_statistics` takes them."""
    heads, drawn = [], []
    for index in range(images):
        pose_id = f"pose-{index // SHARD:05d}-{index % SHARD:05d}"
        try:
            pose = sample_pose(pose_id, seed, poses)
        except ImplausiblePose:
            continue
        drawn.append(
            {"sample_id": pose_id, "width": pose.width, "height": pose.height,
             "layout": pose.layout}
        )  # fmt: skip
        heads += _heads(pose, geometry, captions, sample_rng(seed, GROUP, pose_id))
    return pd.DataFrame(heads), pd.DataFrame(drawn)


def _heads(
    pose: PoseSample,
    geometry: HeadGeometry,
    captions: CaptionsConfig,
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """Return rows of the heads of which a part is in the image."""
    number = len(pose.people)
    scene = compose(
        rng,
        [False] * number,
        [5] * number,
        name_probability=0.0,
        hat_probability=captions.hat_probability,
        max_described=captions.max_described,
    ).scene
    flame = np.zeros((number, NUM_PARAMETERS), np.float32)
    for row, person in zip(flame, pose.people, strict=True):
        rotation, centre = person.head_rotation, person.head_centre_m
        if rotation is None or centre is None or person.shift_px is None:
            raise ValueError(f"{pose.pose_id}: a person without a third dimension")
        row[ROTATION] = np.concatenate([rotation[:, 0], rotation[:, 1]])
        row[SCALE] = person.scale_px_per_m
        row[SHIFT_XY] = row[SCALE] * centre[:2] + person.shift_px
    vertices = geometry.vertices_px(flame)
    frame = np.array([pose.width, pose.height], np.float32)
    rows = []
    for index, points in enumerate(vertices):
        low, high = points.min(axis=0), points.max(axis=0)
        left, right = np.clip(low, 0, frame), np.clip(high, 0, frame)
        if (right - left).min() <= 0:
            continue
        inside = ((points >= 0) & (points < frame)).all(axis=1).mean()
        look = scene.people[index]
        rows.append(
            {"sample_id": pose.pose_id, "bbox_xywh": np.concatenate([left, right - left]),
             "flame": flame[index], "inside": inside, "glasses": look.glasses, "hat": look.hat}
        )  # fmt: skip
    return rows


def main() -> int:
    """Print every quantity of a world, its bounds, and whether it lies within."""
    parser = parser_of(__doc__)
    parser.add_argument("--profile", default="demo", help="(%(default)s)")
    parser.add_argument("--world", type=Path, help="YAML that overrides the profile")
    parser.add_argument("--images", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="(%(default)s)")
    options = parser.parse_args()
    start(threads=1)
    poses, captions = settings(options.profile, options.world)
    geometry = HeadGeometry(build_open_head(0))
    heads, images = draw(poses, captions, geometry, options.images, options.seed)
    bounds = read_bounds(ROOT, options.profile).bounds.get(GROUP, {})
    print(f"\n{len(images)} images, {len(heads)} heads\n\n| quantity | value | bounds | within |")
    print("|---|---|---|---|")
    for name, value in world_statistics(heads, images).items():
        low, high = bounds.get(name) or (None, None)
        within = (low is None or value >= low) and (high is None or value <= high)
        ends = " to ".join("any" if end is None else f"{end:g}" for end in (low, high))
        print(f"| {name} | {value:.3g} | {ends} | {'yes' if within else 'no'} |")
    for layout, fraction in images["layout"].value_counts(normalize=True).items():
        print(f"| layout {layout} | {fraction:.3f} | any to any | yes |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
