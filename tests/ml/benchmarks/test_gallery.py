import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.gallery import (
    KINDS,
    Outcome,
    box_outcome,
    draw_truth,
    pose_outcomes,
    sections_of,
    write_gallery,
)
from ml.benchmarks.metrics_pose import PosePairs
from ml.benchmarks.samples import FaceBoxes
from ml.imaging.io import UnreadableImage, decode_image

ANGLES = np.array([[0.0, yaw, 0] for yaw in (0, 5, 10, 15, 20, 70, 150, -30, -10, 12)])


def poses(changes, frame_deg=0.0):
    """Pairs with a rotation of given degrees about each head's own axis, NaN for missed."""
    true = rotations_from_euler(ANGLES)
    changes = np.array(changes)
    frame = Rotation.from_euler("x", frame_deg, degrees=True).as_matrix()
    turns = Rotation.from_euler("y", np.nan_to_num(changes)[:, None], degrees=True).as_matrix()
    predicted = np.where(np.isnan(changes)[:, None, None], np.nan, true @ turns @ frame)
    return PosePairs(np.arange(len(true)), true, predicted)


def ids(count=10):
    return [f"image-{i}" for i in range(count)]


def test_kinds_of_failures_of_poses():
    changes = [0, 0, 0, 0, math.nan, 50, 60, 0, 35, math.nan]
    sizes = np.array([10.0, *[50.0] * 3, 15.0, *[50.0] * 5])
    occluded = np.arange(10) == 9
    found = {o.sample_id: o for o in pose_outcomes(ids(), poses(changes), sizes, occluded)}
    assert found["image-0"].kinds == ()  # tiny, but no failure
    assert found["image-4"].kinds == ("missed", "tiny")
    assert found["image-5"].kinds == ("wrong rotation", "profile")
    assert found["image-6"].kinds == ("wrong rotation", "back")
    assert found["image-8"].kinds == ("wrong rotation",)
    assert found["image-9"].kinds == ("missed", "occluded")
    assert found["image-5"].error == pytest.approx(50)
    assert math.isnan(found["image-9"].error)
    assert found["image-9"].caption == "missed"


def test_a_constant_turn_is_the_frames_fault():
    outcomes = pose_outcomes(ids(), poses([0] * 9 + [90], frame_deg=15))
    assert [o.kinds for o in outcomes[:9]] == [("wrong frame",)] * 9
    assert outcomes[9].kinds == ("wrong rotation",)


def test_kinds_of_failures_of_boxes():
    boxes = np.array([[0.0, 0, 50, 50], [100, 0, 110, 10], [200, 0, 250, 50], [300, 0, 350, 50]])
    truth = FaceBoxes(
        boxes,
        ignore=np.array([False, False, False, True]),
        attributes={"occlusion": np.array([2, 0, 1, 2])},
    )
    perfect = box_outcome("a", boxes, np.ones(4), truth)
    assert (perfect.error, perfect.kinds) == (0, ())
    found = np.concatenate([boxes[:1], [[500.0, 0, 550, 50]]])
    some = box_outcome("b", found, np.array([0.9, 0.8]), truth)
    assert some.kinds == ("missed", "false", "tiny", "occluded")
    assert some.error == pytest.approx(3 / 3)
    assert some.caption == "2 of 3 missed, 1 false"
    # a head below the operating score is not a false positive
    unsure = box_outcome(
        "c", np.concatenate([boxes, [[500.0, 0, 550, 50]]]), np.array([0.9] * 4 + [0.1]), truth
    )
    assert unsure.kinds == ()
    empty = FaceBoxes(np.zeros((0, 4)))
    assert box_outcome("d", np.zeros((0, 4)), np.zeros(0), empty).error == 0
    assert box_outcome("d", boxes, np.ones(4), empty).kinds == ("false",)


def outcomes():
    errors = [3.0, 1, 4, 1.5, 9, 2, 6, math.nan]
    kinds = {4: ("wrong rotation",), 6: ("wrong rotation", "profile"), 7: ("missed",)}
    return [Outcome(f"i{n}", e, kinds.get(n, ()), f"{e}") for n, e in enumerate(errors)]


def test_best_median_worst_and_each_kind():
    sections = {s.title: s for s in sections_of(outcomes(), per_section=2)}
    assert list(sections) == ["Best", "Median", "Worst", *(kind.capitalize() for kind in KINDS)]
    shown = {title: [o.sample_id for o in s.outcomes] for title, s in sections.items()}
    assert shown["Best"] == ["i1", "i3"]
    assert shown["Median"] == ["i5", "i0"]
    assert shown["Worst"] == ["i4", "i6"]
    assert shown["Wrong rotation"] == ["i4", "i6"]
    assert shown["Missed"] == ["i7"]
    assert shown["Back"] == []
    assert sections["Best"].total == 7
    assert sections_of([])[0].outcomes == ()


def test_the_page_escapes_names_and_draws_each_image_once(tmp_path):
    name = '"><script>alert(1)</script>/../<b>ä'
    drawn = []

    def draw(sample_id):
        drawn.append(sample_id)
        if sample_id == "i0":
            raise UnreadableImage("gone")
        return np.full((900, 300, 3), 90, np.uint8)

    given = [*outcomes(), Outcome(name, 99.0, ("false",), "<i>")]
    path = write_gallery(tmp_path / "g", "AFLW <2000>", given, draw, notes=["a & b"])
    page = path.read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;/../&lt;b&gt;ä" in page
    assert "AFLW &lt;2000&gt;" in page
    assert "<p>A &amp; b.</p>" in page
    assert sorted(drawn) == sorted({o.sample_id for o in given})
    assert "unreadable image" in page
    files = sorted((tmp_path / "g" / "images").iterdir())
    assert len(files) == 8
    assert all(f.suffix == ".jpg" and f.stem.isalnum() for f in files)
    assert max(decode_image(files[0]).shape) == 420
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g"]
    again = write_gallery(tmp_path / "h", "AFLW <2000>", given, draw, notes=["a & b"])
    assert again.read_bytes() == path.read_bytes()


def test_true_boxes_are_drawn_on_a_copy():
    image = np.zeros((40, 60, 3), np.uint8)
    drawn = draw_truth(image, np.array([[10.0, 10, 30, 30]]))
    assert image.max() == 0
    assert drawn[10, 20, 1] > 200 > 100 > drawn[10, 20, 0]
    assert drawn[20, 20].max() == 0
