"""The dataset as a stream: every kept image once, with its heads, or an exclusion."""

import numpy as np
import pandas as pd
import pytest

from ml.records.exclusions import Exclusions
from ml.records.tables import DATASET_HEADS, TableError, read_table, write_table
from ml.release.source import count_kept, iter_dataset


def stream(ws, **options):
    exclusions = Exclusions("export")
    return list(iter_dataset(ws, exclusions, **options)), exclusions.to_frame()


def test_every_kept_image_comes_once_with_its_own_heads(dataset):
    items, excluded = stream(dataset)
    assert [item.sample_id for item in items] == [
        "image-a0", "image-a1", "image-a3", "image-b0", "image-b1", "image-b2",
    ]  # fmt: skip
    assert [len(item) for item in items] == [2, 1, 2, 0, 2, 3]
    assert len(excluded) == 0
    assert count_kept(dataset, ["train", "val", "test"]) == 6
    table = read_table(dataset.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    by_id = {item.sample_id: item for item in items}
    for row in table.to_dict("records"):
        item = by_id[row["sample_id"]]
        head = row["head_id"]
        box = item.boxes_xyxy[head]
        np.testing.assert_allclose(box[2:] - box[:2], row["bbox_xywh"][2:], atol=1e-5)
        assert item.flame_valid[head] == (row["flame_status"] == "ok")
        if item.flame_valid[head]:
            np.testing.assert_array_equal(item.flame[head], row["flame"])
    assert by_id["image-a0"].prompt == "people in image-a0"
    assert by_id["image-b0"].stability is None


def test_some_splits(dataset):
    items, _ = stream(dataset, splits=("val",))
    assert [item.sample_id for item in items] == ["image-a1", "image-b0"]
    assert [len(item) for item in items] == [1, 0]


def test_a_changed_image_is_excluded_and_nothing_else(dataset):
    path = dataset.stage_dir("images") / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    where = data.index(b"\xff\xd8")
    data[where + 300] ^= 1
    path.write_bytes(bytes(data))
    items, excluded = stream(dataset)
    assert excluded["sample_id"].tolist() == ["image-a0"]
    assert excluded["reason"].tolist() == ["damaged_image"]
    assert "sha256" in excluded["detail"][0]
    assert len(items) == 5


def test_heads_in_another_order_are_refused(dataset):
    path = dataset.stage_dir("filtered_dataset") / "heads.parquet"
    table = read_table(path, DATASET_HEADS)
    write_table(path, pd.DataFrame(table.iloc[::-1]), DATASET_HEADS)
    with pytest.raises(TableError, match="rerun the stage filtered_dataset"):
        stream(dataset)
