import pytest
import torch

from ml.model.targets import HeadTargets


def of_image(count: int) -> HeadTargets:
    return HeadTargets.of_image(torch.rand(count, 4), torch.rand(count, 413))


def test_collate_keeps_the_order_of_images_and_empty_ones():
    parts = [of_image(2), of_image(0), of_image(1)]
    batch = HeadTargets.collate(parts)
    assert batch.image_index.tolist() == [0, 0, 2]
    torch.testing.assert_close(batch.boxes_xyxy[2], parts[2].boxes_xyxy[0])
    assert batch.flame_valid.all()
    assert not batch.ignore.any()
    assert len(HeadTargets.collate([])) == len(HeadTargets.empty()) == 0
    assert len(batch.to("cpu")) == 3


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match=r"HeadTargets.flame: expected \(2, 413\) .* \(2, 412\)"):
        HeadTargets.of_image(torch.rand(2, 4), torch.rand(2, 412))
    with pytest.raises(ValueError, match=r"HeadTargets.ignore: expected \(1,\) torch.bool"):
        HeadTargets.of_image(torch.rand(1, 4), torch.rand(1, 413), ignore=torch.zeros(1))
