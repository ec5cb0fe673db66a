import cv2
import numpy as np
import pytest

from ml.annotation import augment
from ml.annotation.augment import NO_AUGMENTATION, CropAugmentConfig
from ml.flame.frames import crop_to_image, extract_crops

FRAME = np.array([40.0, 30.0, 100.0])


def test_no_augmentation_is_the_annotation_stages_crop() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (192, 192, 3), dtype=np.uint8)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)
    similarity = augment.random_crop(FRAME, 70, 192, 128, NO_AUGMENTATION, rng)
    crop = augment.degraded(augment.cut_crop(image, similarity, 128), NO_AUGMENTATION, rng)
    np.testing.assert_allclose(crop, extract_crops(image, FRAME[None], 128)[0], atol=1)
    flame = rng.normal(size=(1, 413)).astype(np.float32)
    back = crop_to_image(similarity.flame(flame), FRAME[None], 128)
    np.testing.assert_allclose(back, flame, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_the_head_stays_near_the_middle_also_when_mirrored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = CropAugmentConfig(shift=0.05, zoom=0.2, rotation_deg=40, flip=0.5)
    similarity = augment.random_crop(FRAME, 70, 192, 128, config, rng)
    image = np.zeros((192, 192, 3), np.uint8)
    cv2.circle(image, (89, 79), 5, (255, 255, 255), -1)
    crop = augment.cut_crop(image, similarity, 128)[..., 0].astype(float)
    rows, columns = np.mgrid[:128, :128] + 0.5
    seen = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(seen, similarity.points(np.array([89.5, 79.5])), atol=0.3)
    np.testing.assert_allclose(seen, 64, atol=0.05 * 70 * 128 / 100 * np.exp(0.2) * 1.5 + 1)


def test_same_seed_same_crop_and_input_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    before = image.copy()
    config = CropAugmentConfig(occlusion=1, low_resolution=1)
    first = augment.degraded(image, config, np.random.default_rng(5))
    second = augment.degraded(image, config, np.random.default_rng(5))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert (first != image).any()


def test_truncation_cuts_image_and_box_on_one_side() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    box = np.array([20, 30, 70, 90], np.float32)
    config = CropAugmentConfig(truncation=1, truncation_fraction=0.4)
    sides = set()
    for seed in range(30):
        cut, left = augment.truncated(image, box, config, np.random.default_rng(seed))
        changed = np.flatnonzero(left != box)
        assert len(changed) == 1
        sides.add(int(changed[0]))
        x0, y0, x1, y1 = left.astype(int)
        assert (cut[y0:y1, x0:x1] == 200).all()
        lost = 1 - (x1 - x0) * (y1 - y0) / (50 * 60)
        assert 0.02 <= lost <= 0.42
        beyond = (cut[:, :x0], cut[:y0], cut[:, x1:], cut[y1:])[changed[0]]
        assert (beyond == 0).all()
    assert sides == {0, 1, 2, 3}
    assert (image == 200).all()
