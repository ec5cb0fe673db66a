"""COCO-17 to OpenPose-18 by hand, and what is drawn where."""

import numpy as np
import pytest

from ml.poses.openpose import LIMBS, PALETTE, draw_openpose, to_openpose


def numbered_keypoints():
    """Joint i at (10 i, 100 + i) with confidence i / 20."""
    index = np.arange(17, dtype=np.float32)
    return np.stack([10 * index, 100 + index, index / 20], axis=1)


def test_conversion_by_hand():
    converted = to_openpose(numbered_keypoints())
    coco_index = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    for joint, source in enumerate(coco_index):
        # The neck is half way between shoulders 5 and 6, in confidence too.
        expected = (
            (55.0, 105.5, 0.275) if source is None else (10 * source, 100 + source, source / 20)
        )
        np.testing.assert_allclose(converted[joint], expected, rtol=1e-6)


def test_conversion_keeps_leading_dimensions():
    people = np.stack([numbered_keypoints(), numbered_keypoints() + 1])
    assert to_openpose(people).shape == (2, 18, 3)
    np.testing.assert_array_equal(to_openpose(people)[0], to_openpose(people[0]))


def test_conversion_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"last dimensions must be \(17, 3\).*got \(18, 3\)"):
        to_openpose(np.zeros((18, 3)))


def test_tables_have_seventeen_limbs_and_eighteen_colours():
    assert len(LIMBS) == 17
    assert len(set(PALETTE)) == len(PALETTE) == 18
    assert {joint for limb in LIMBS for joint in limb} == set(range(18))
    assert LIMBS[0] == (1, 2)
    assert LIMBS[12] == (1, 0)
    assert LIMBS[16] == (15, 17)


def one_limb(confidence=1.0):
    """Right shoulder at (40, 50) and right elbow at (140, 50); nothing else is seen.

    The shoulder's confidence is below 0.6, so that the neck, its mean with the left shoulder's 0,
    stays below 0.3.
    """
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[6] = (40, 50, 0.5)
    keypoints[8] = (140, 50, confidence)
    return keypoints[None]


def test_one_limb_by_hand():
    image = draw_openpose(one_limb(), 200, 100)
    # Limb 3 (index 2) joins OpenPose joints 2 and 3; its ellipse has half axes 50 and 8.
    limb_colour = [round(0.6 * channel) for channel in PALETTE[2]]
    assert image[50, 90].tolist() == limb_colour
    assert image[50 + 7, 90].tolist() == limb_colour
    assert image[50 + 10, 90].tolist() == [0, 0, 0]
    # Full discs of radius 8 at both ends, in the joints' own colours.
    assert image[50, 40].tolist() == list(PALETTE[2])
    assert image[50, 140].tolist() == list(PALETTE[3])
    assert image[50, 140 + 8].tolist() == list(PALETTE[3])
    assert image[50, 140 + 10].tolist() == [0, 0, 0]
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), tuple(limb_colour), PALETTE[2], PALETTE[3]}


@pytest.mark.parametrize(("confidence", "is_drawn"), [(0.29, False), (0.3, True), (0.31, True)])
def test_limb_needs_both_ends(confidence, is_drawn):
    assert draw_openpose(one_limb(confidence), 200, 100).any() == is_drawn


def test_joint_without_limb_is_not_drawn():
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 0] = (50, 50, 1.0)
    assert not draw_openpose(keypoints, 100, 100).any()


def test_reversed_channels_swap_red_and_blue():
    plain = draw_openpose(one_limb(), 200, 100)
    reverse = draw_openpose(one_limb(), 200, 100, reverse_channels=True)
    np.testing.assert_array_equal(plain[..., ::-1], reverse)


@pytest.mark.parametrize("num_people", [0, 1, 3])
def test_any_number_of_people(num_people):
    keypoints = np.repeat(one_limb(), num_people, axis=0) if num_people else np.zeros((0, 17, 3))
    image = draw_openpose(keypoints, 200, 100)
    assert image.shape == (100, 200, 3)
    assert image.dtype == np.uint8
    assert image.any() == (num_people > 0)


def test_degenerate_limb_and_points_outside_do_not_crash():
    keypoints = np.full((1, 17, 3), 50, np.float32)
    keypoints[..., 2] = 1.0
    keypoints[0, 9, :2] = (-400, 9000)
    assert draw_openpose(keypoints, 100, 100).any()
