"""What a world of people is like, by hand, and every bound that the demo declares of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from ml.evaluation.metrics import view_angles_deg
from ml.flame.rotation import FRONTAL
from ml.quality.bounds import judge, read_bounds
from ml.quality.distributions import world_statistics

ROOT = Path(__file__).parents[3]
HEADS, IMAGES = 1000, 465
DECLARED = read_bounds(ROOT, "demo").bounds["world"]


def parts(number, *fractions):
    """Values in the given fractions, spread evenly over the rows."""
    edges = np.cumsum([fraction for _, fraction in fractions])
    at = (np.arange(number) * 0.6180339887498949) % 1.0
    chosen = np.minimum(np.searchsorted(edges, at, side="right"), len(fractions) - 1)
    return np.array([value for value, _ in fractions])[chosen]


def world(**changed):
    """Tables of heads and images within all bounds, but for what is changed."""
    rng = np.random.default_rng(0)
    columns = {
        "yaw": parts(HEADS, (30, 0.72), (-75, 0.16), (150, 0.12)),
        "pitch": rng.permutation(parts(HEADS, (5, 0.81), (-25, 0.15), (40, 0.04))),
        "roll": rng.permutation(parts(HEADS, (0, 0.81), (20, 0.165), (-35, 0.025))),
        "size": rng.permutation(np.geomspace(11.5, 132, HEADS)),
        "glasses": parts(HEADS, ("none", 0.76), ("glasses", 0.24)),
        "hat": parts(HEADS, ("none", 0.78), ("cap", 0.22)),
        "inside": rng.permutation(parts(HEADS, (1.0, 0.94), (0.7, 0.06))),
        "visible": rng.permutation(parts(HEADS, (0.95, 0.87), (0.5, 0.13))),
        "layout": parts(IMAGES, ("portrait", 0.665), ("group", 0.04), ("scattered", 0.295)),
        "heads": HEADS,
    } | changed
    turns = np.stack([columns["yaw"], columns["pitch"], columns["roll"]], axis=1)
    rotations = FRONTAL @ Rotation.from_euler("YXZ", turns, degrees=True).as_matrix()
    flame = np.zeros((HEADS, 413), np.float32)
    flame[:, 403:406], flame[:, 406:409] = rotations[:, :, 0], rotations[:, :, 1]
    heads = pd.DataFrame(
        {
            "sample_id": [f"image-{n % IMAGES}" for n in range(HEADS)],
            "bbox_xywh": [np.float32([1, 1, s * 0.8, s / 0.8]) for s in columns["size"]],
            "flame": list(flame),
            **{name: columns[name] for name in ("glasses", "hat", "inside", "visible")},
        }
    )[: columns["heads"]]
    images = pd.DataFrame({"sample_id": [f"image-{n}" for n in range(IMAGES)]})
    return heads, images.assign(width=256, height=300, layout=columns["layout"])


def outside(**changed):
    """Names of the statistics that lie outside the demo's bounds."""
    found = judge(world_statistics(*world(**changed)), read_bounds(ROOT, "demo"), "world")
    return {text.split(" ")[0].removeprefix("world.") for text in found["problem"] if text}


def test_angles_are_told_over_the_full_turn_with_the_signs_of_the_benchmarks():
    turns = np.array([[0, 0, 0], [30, 0, 0], [170, 0, 0], [0, 20, 0], [0, 0, 25], [140, -15, 10]])
    seen = FRONTAL @ Rotation.from_euler("YXZ", turns, degrees=True).as_matrix()
    pitch, yaw, roll = view_angles_deg(seen).T
    assert yaw == pytest.approx([0, -30, -170, 0, 0, -140])
    assert pitch == pytest.approx([0, 0, 0, -20, 0, 15])
    assert roll == pytest.approx([0, 0, 0, 0, -25, -10])


def test_a_world_by_hand():
    values = world_statistics(*world())
    assert set(values) == set(DECLARED)
    assert values["heads_per_image"] == HEADS / IMAGES
    wanted = {
        "groups": 0.335, "turned_over_60": 0.28, "turned_over_90": 0.12, "pitched_over_20": 0.19,
        "pitched_over_35": 0.04, "leaning_over_15": 0.19, "leaning_over_30": 0.025,
        "glasses": 0.24, "hats": 0.22, "cut": 0.06, "hidden": 0.13,
    }  # fmt: skip
    assert {name: values[name] for name in wanted} == pytest.approx(wanted, abs=3e-3)
    assert values["head_px_p50"] == pytest.approx(np.sqrt(11.5 * 132), rel=0.01)
    # Of the image's shorter side.
    assert values["head_of_image_p99"] == pytest.approx(129 / 256, rel=0.02)
    assert outside() == set()


def test_nothing_is_known_of_nothing():
    heads, images = world()
    values = world_statistics(heads[:0], images.assign(layout=""))
    assert values["heads_per_image"] == 0
    assert all(np.isnan(v) for name, v in values.items() if name != "heads_per_image")


ALL = np.full(HEADS, 1.0)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"heads": 600}, {"heads_per_image"}),
        ({"layout": np.full(IMAGES, "portrait")}, {"groups"}),
        ({"layout": np.full(IMAGES, "scattered")}, {"groups"}),
        ({"yaw": 20 * ALL}, {"turned_over_60", "turned_over_90"}),
        ({"yaw": 75 * ALL}, {"turned_over_60", "turned_over_90"}),
        ({"yaw": 180 * ALL}, {"turned_over_60", "turned_over_90"}),
        ({"pitch": 0 * ALL}, {"pitched_over_20", "pitched_over_35"}),
        ({"pitch": 40 * ALL}, {"pitched_over_20", "pitched_over_35"}),
        ({"roll": 0 * ALL}, {"leaning_over_15", "leaning_over_30"}),
        ({"roll": 40 * ALL}, {"leaning_over_15", "leaning_over_30"}),
        ({"size": 40 * ALL},
         {"head_px_p01", "head_px_p10", "head_of_image_p99"}),
        ({"size": np.geomspace(5, 50, HEADS)},
         {"head_px_p01", "head_px_p10", "head_px_p50", "head_of_image_p99"}),
        ({"size": np.geomspace(40, 200, HEADS)},
         {"head_px_p01", "head_px_p10", "head_px_p50", "head_of_image_p99"}),
        ({"glasses": np.full(HEADS, "none")}, {"glasses"}),
        ({"hat": np.full(HEADS, "none")}, {"hats"}),
        ({"inside": ALL}, {"cut"}),
        ({"visible": ALL}, {"hidden"}),
        ({"inside": 0.5 * ALL, "visible": 0.5 * ALL}, {"cut", "hidden"}),
    ],
)  # fmt: skip
def test_another_world_is_outside_the_bounds(changed, names):
    assert outside(**changed) == names


@pytest.mark.parametrize("name", DECLARED)
def test_both_ends_of_every_bound_hold(name):
    values, (low, high) = world_statistics(*world()), DECLARED[name]
    for value, ends in ((low, 0), (high, 0), (low - 1e-6, 1), (high + 1e-6, 1)):
        found = judge({**values, name: value}, read_bounds(ROOT, "demo"), "world")
        assert (found["problem"] != "").sum() == ends, (name, value)
