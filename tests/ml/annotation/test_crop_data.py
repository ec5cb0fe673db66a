"""Crops of rendered heads as training data: image, box and parameters are cut alike."""

import cv2
import numpy as np
import pytest
import torch

from ml.annotation.augment import NO_AUGMENTATION, CropAugmentConfig, truncated
from ml.annotation.crop_data import STAGE, CropDataModule, CropDataset, CropExamples, load_crops
from ml.annotation.regressor import RegressorArchitecture
from ml.flame.frames import crop_to_image, extract_crops, square_frames
from ml.flame.head_model import HeadModel
from ml.flame.params import ROTATION
from ml.flame.projection import mirror_flame
from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.workspace import Workspace
from ml.training.determinism import SampleKey

SIZE, SEED = 96, 3
ARCHITECTURE = RegressorArchitecture(crop_size=SIZE, box_margin=0.2)
BOXES = np.array([[40, 30, 70, 80], [90, 20, 130, 56]], np.float32)
FIRST, SECOND = SampleKey(0, 0), SampleKey(1, 0)


@pytest.fixture(scope="module")
def examples() -> CropExamples:
    """Two heads, turned and off-centre, in images (110, 160)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 110, 160, 3), dtype=np.uint8)
    images = [np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8) for image in noise]
    flame = rng.normal(0, 0.5, (2, 413)).astype(np.float32)
    rotations = matrix_from_euler_deg(torch.tensor([[5.0, 40.0, 10.0], [-8.0, -25.0, 3.0]]))
    flame[:, ROTATION] = sixd_from_matrix(rotations).numpy()
    flame[:, 409:413] = [[53, 57, 0, 190], [112, 40, 0, 150]]
    return CropExamples(["a", "b"], images, BOXES, flame)


def dataset(
    examples: CropExamples, head_model: HeadModel, augment: CropAugmentConfig
) -> CropDataset:
    return CropDataset(examples, ARCHITECTURE, augment, head_model, SEED)


def side(frame: np.ndarray) -> float:
    return float(frame[0, 2])


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_held_out_crop_is_the_annotation_stages(
    examples: CropExamples, head_model: HeadModel, key: SampleKey
) -> None:
    everything = CropAugmentConfig(truncation=1, occlusion=1, flip=1)
    module = CropDataModule(examples, examples, ARCHITECTURE, everything, head_model, 2, SEED)
    item = module.dataset(training=False)[key]
    box = BOXES[key.index]
    frame = square_frames(box[None], ARCHITECTURE.box_margin)
    image = examples.images_rgb[key.index]
    np.testing.assert_allclose(item.crop_rgb, extract_crops(image, frame, SIZE)[0], atol=1)
    back = crop_to_image(item.flame[None], frame, SIZE)[0]
    np.testing.assert_allclose(back, examples.flame[key.index], rtol=1e-4, atol=1e-3)
    width, height = box[2:] - box[:2]
    assert item.box_size == pytest.approx(np.sqrt(width * height) * SIZE / side(frame), rel=1e-5)
    assert item.crop_id == examples.crop_ids[key.index]


def test_mirrored_crop_has_the_mirrored_head(examples: CropExamples, head_model: HeadModel) -> None:
    flipping = NO_AUGMENTATION.model_copy(update={"flip": 1.0})
    item = dataset(examples, head_model, flipping)[SECOND]
    left, top, right, bottom = BOXES[1]
    frame = square_frames(np.array([[160 - right, top, 160 - left, bottom]]), 0.2)
    mirrored = np.ascontiguousarray(examples.images_rgb[1][:, ::-1])
    np.testing.assert_allclose(item.crop_rgb, extract_crops(mirrored, frame, SIZE)[0], atol=1)
    expected = mirror_flame(torch.as_tensor(examples.flame[1:]), 160, head_model)[0]
    back = crop_to_image(item.flame[None], frame, SIZE)[0]
    np.testing.assert_allclose(back, expected, rtol=1e-4, atol=1e-3)


def test_truncated_head_is_cut_around_what_is_left(
    examples: CropExamples, head_model: HeadModel
) -> None:
    cutting = NO_AUGMENTATION.model_copy(update={"truncation": 1.0})
    crops = dataset(examples, head_model, cutting)
    for epoch in range(4):
        item = crops[SampleKey(0, epoch)]
        rng = sample_rng(SEED, STAGE, f"a/epoch-{epoch}")
        image, left = truncated(examples.images_rgb[0], BOXES[0], cutting, rng)
        frame = square_frames(left[None], 0.2)
        # Beyond the cut the image is black: only there two samplings may differ.
        difference = np.abs(item.crop_rgb.astype(int) - extract_crops(image, frame, SIZE)[0])
        assert np.mean(difference > 2) < 0.02
        back = crop_to_image(item.flame[None], frame, SIZE)[0]
        np.testing.assert_allclose(back, examples.flame[0], rtol=1e-4, atol=1e-3)
        area = np.prod(left[2:] - left[:2])
        assert item.box_size == pytest.approx(np.sqrt(area) * SIZE / side(frame), rel=1e-5)


def test_epoch_and_crop_seed_the_augmentation(
    examples: CropExamples, head_model: HeadModel
) -> None:
    crops = dataset(examples, head_model, CropAugmentConfig())
    first, again, later = (crops[SampleKey(0, epoch)] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first.crop_rgb, again.crop_rgb)
    np.testing.assert_array_equal(first.flame, again.flame)
    assert (first.crop_rgb != later.crop_rgb).any()
    assert (first.flame != later.flame).any()
    assert len(crops) == 2


def test_batch_keeps_order_and_channels(examples: CropExamples, head_model: HeadModel) -> None:
    crops = dataset(examples, head_model, NO_AUGMENTATION)
    items = [crops[SECOND], crops[FIRST]]
    batch = CropDataModule.collate(items)
    assert batch.sample_ids == ["b", "a"]
    assert batch.crops.shape == (2, 3, SIZE, SIZE)
    assert batch.crops.dtype == torch.uint8
    for number, item in enumerate(items):
        np.testing.assert_array_equal(batch.crops[number, 2], item.crop_rgb[..., 2])
        np.testing.assert_array_equal(batch.flame[number], item.flame)
        assert float(batch.box_size[number]) == pytest.approx(item.box_size)


def test_crops_that_are_not_made_are_an_error_that_names_their_folder_and_stage(tmp_path):
    ws = Workspace(tmp_path, seed=0, num_shards=1, shard_size=1)
    with pytest.raises(FileNotFoundError, match=r"data/crops: no crop shards; run the stage crops"):
        load_crops(ws, "train", Exclusions(STAGE))
