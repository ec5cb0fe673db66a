"""Labels of a dataset: the same however they arrive and are kept, projected when asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.training_data import labels as module
from ml.training_data.augmentation import head_outlines
from ml.training_data.labels import (
    LabelTable,
    OneFrame,
    PseudoHeads,
    count_heads,
    label_problem,
    labels_of,
    shown_heads,
)
from ml.training_data.labels import pseudo_labels as table_of


def heads(count: int = 40, seed: int = 0) -> pd.DataFrame:
    """Heads of images that do not stand together; every seventh has no parameters."""
    rng = np.random.default_rng(seed)
    flame = rng.normal(size=(count, 413)).astype(np.float32)
    flame[:, 412] = 100
    boxes = np.concatenate([rng.uniform(0, 50, (count, 2)), rng.uniform(20, 60, (count, 2))], 1)
    return pd.DataFrame(
        {
            "sample_id": [f"image-{i % 9}" for i in range(count)],
            "bbox_xywh": list(boxes.astype(np.float32)),
            "flame": list(flame),
            "flame_status": ["too_small" if i % 7 == 3 else "ok" for i in range(count)],
        }
    )


class Projection:
    """Meshes that depend on the parameters, and a count of those made."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, flame: np.ndarray) -> np.ndarray:
        self.sizes.append(len(flame))
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        radius = 15 + 2 * flame[:, :1] * np.cos(3 * angles) + flame[:, 1:2] * np.sin(2 * angles)
        x, y = 40 + radius * np.cos(angles), 40 + radius * np.sin(angles)
        return np.stack([x, y], axis=-1).astype(np.float32)


class Counted:
    """Heads in parts of eleven, and which parts the parameters were read of."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.parts = [PseudoHeads(OneFrame(table.iloc[at : at + 11])) for at in range(0, 40, 11)]
        self.read_parts: list[int] = []

    def __len__(self) -> int:
        return len(self.parts)

    def rows(self, part: int) -> module.LabelRows:
        return self.parts[part].rows(0)

    def flame(self, part: int) -> np.ndarray:
        self.read_parts.append(part)
        return self.parts[part].flame(0)


def same(first: module.HeadLabels, second: module.HeadLabels) -> bool:
    names = ("boxes_xyxy", "flame", "flame_valid", "ignore", "outlines")
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in names)


def test_pieces_in_a_file_are_the_table_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 8)
    table, whole = heads(), Projection()
    memory = table_of(table, whole)
    source = Counted(table)
    filed = LabelTable(source, Projection(), tmp_path / "work" / "labels.flame")
    assert source.read_parts == []
    assert list(memory) == list(filed) == [f"image-{i}" for i in range(9)]
    assert all(same(memory[i], filed[i]) for i in memory)
    assert sorted(source.read_parts) == [0, 1, 2, 3], "each part is read once"
    assert all(same(memory[i], pickle.loads(pickle.dumps(filed))[i]) for i in memory)
    assert max(whole.sizes) == 8
    own = len(pickle.dumps(filed)) - len(pickle.dumps(source))
    assert own < len(pickle.dumps(memory)) / 4, "the file is not copied"


def test_outlines_are_those_of_the_meshes_and_ellipses_without() -> None:
    table, project = heads(), Projection()
    labels = table_of(table, project)["image-3"]
    rows = table[table["sample_id"] == "image-3"]
    valid = (rows["flame_status"] == "ok").to_numpy()
    assert valid.any()
    assert not valid.all()
    meshes: list[np.ndarray | None] = [None] * len(rows)
    for place in np.flatnonzero(valid):
        meshes[place] = project(np.stack(list(rows["flame"]))[place : place + 1])[0]
    assert np.allclose(labels.outlines, head_outlines(labels.boxes_xyxy, meshes), atol=1e-5)
    ellipses = head_outlines(labels.boxes_xyxy, [None] * len(rows))
    assert np.array_equal(labels.outlines[~valid], ellipses[~valid])
    assert not np.allclose(labels.outlines[valid], ellipses[valid], atol=0.5)


def test_nothing_is_projected_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "_KEPT_CHUNKS", 2)
    project = Projection()
    labels = table_of(heads(), project)
    assert count_heads(labels, list(labels)) == (40, 6)
    assert label_problem(labels, "image-0") is None
    index, boxes = shown_heads(labels, list(labels))
    assert len(index) == len(boxes) == 34
    assert project.sizes == []
    for sample_id in labels:
        labels[sample_id]
    assert len(labels._chunks) == 2, "meshes' outlines are forgotten again"


def test_heads_of_some_images_are_counted_without_their_parameters() -> None:
    rows = heads()
    labels = table_of(rows)
    labels._flame = None
    some = rows[rows["sample_id"].isin(["image-2", "image-5"])]
    ignored = int((some["flame_status"] != "ok").sum())
    assert count_heads(labels, ["image-5", "nobody", "image-2"]) == (len(some), ignored)
    assert count_heads(labels, ["nobody"]) == (0, 0)


def test_an_image_without_rows_has_no_labels() -> None:
    labels = table_of(heads())
    assert labels.get("nobody") is None
    assert labels_of(labels, "nobody") is None
    assert label_problem(labels, "nobody") is None
    assert table_of(heads().iloc[:0]) == {}


def test_parameters_are_read_once_for_all_processes(tmp_path: Path) -> None:
    table = heads()
    source = Counted(table)
    labels = LabelTable(source, Projection(), tmp_path / "labels.flame")
    first = labels.without_outlines("image-0")
    assert 0 < len(source.read_parts) <= 4
    copy = pickle.loads(pickle.dumps(labels))
    copy._flame._source.read_parts.clear()
    assert np.array_equal(copy.without_outlines("image-0").flame, first.flame)
    assert copy._flame._source.read_parts == []


def test_heads_to_show_are_found_without_their_parameters(tmp_path: Path) -> None:
    table = heads()
    source = Counted(table)
    labels = LabelTable(source, Projection(), tmp_path / "labels.flame")
    ids = ["image-5", "nobody", "image-2"]
    index, boxes = shown_heads(labels, ids)
    expected = shown_heads({i: table_of(table)[i] for i in ids if i in labels}, ids)
    assert set(index) == {0, 2}
    assert np.array_equal(index, expected[0])
    assert np.array_equal(boxes, expected[1])
    assert source.read_parts == []
