from pathlib import Path

import numpy as np
import pytest

from ml.flame.head_model import HeadModel
from ml.generation.renderer.single_head import SingleHead
from ml.generation.renderer.truth import TruthHead
from ml.imaging.io import decode_image
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.shards import ShardReader
from ml.records.tables import CROPS, read_stage, read_table, stack
from ml.records.workspace import Workspace
from ml.stages import crops
from ml.stages.crops import CropsConfig, crop_shards, run_shard

CONFIG = CropsConfig(
    num_crops=25, crops_per_shard=10, image_px=64, val_fraction=0.3, max_drop_rate=0.5
)


def draw(head_model: HeadModel, config: object, rng: np.random.Generator, size: int) -> SingleHead:
    """A grey square whose place, grey and visibility are drawn from the generator."""
    left, top = rng.integers(10, 20, 2)
    image = np.zeros((size, size, 3), np.uint8)
    image[top : top + 30, left : left + 24] = rng.integers(100, 255)
    visible = float(rng.uniform(0, 1))
    flame = rng.normal(size=413).astype(np.float32)
    box = np.array([left, top, left + 24, top + 30], np.float32)
    xywh = np.array([left, top, 24, 30], np.float32)
    truth = TruthHead(0, xywh, visible, 1.0, flame, 3, "short", "none", "none")
    return SingleHead(image, box, flame, visible, truth)


@pytest.fixture(scope="session")
def head_model(ball_head: HeadModel) -> HeadModel:
    return ball_head


@pytest.fixture
def ws(tmp_path: Path, head_model: HeadModel, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(crops, "render_single_head", draw)
    head_model.save(tmp_path / "data/head_model/head_model.npz")
    return Workspace(tmp_path, seed=5, num_shards=1, shard_size=1)


def test_shards_cover_all_crops(ws: Workspace) -> None:
    assert crop_shards(CONFIG) == ["crops-00000", "crops-00001", "crops-00002"]
    reports = [run_shard(ws, CONFIG, shard) for shard in crop_shards(CONFIG)]
    assert [report.num_in for report in reports] == [10, 10, 5]
    table = read_stage(ws, "crops", CROPS, crop_shards(CONFIG))
    exclusions = read_exclusions(ws, ["crops"])
    names = {f"crop-{index:06d}" for index in range(25)}
    assert set(table["crop_id"]) | set(exclusions["sample_id"]) == names
    assert len(table) + len(exclusions) == 25
    assert set(exclusions["reason"]) == {"hidden"}
    assert (table["visible"] >= CONFIG.min_visible).all()
    assert set(table["split"]) == {"train", "val"}


def test_table_and_tar_belong_together(ws: Workspace) -> None:
    run_shard(ws, CONFIG, "crops-00001")
    table = read_table(ws.table_path("crops", "crops-00001"), CROPS)
    boxes = stack(table["bbox_xywh"])
    with ShardReader(ws.stage_dir("crops") / "crops-00001.tar") as reader:
        assert reader.keys() == table["crop_id"].tolist()
        for crop_id, box in zip(table["crop_id"], boxes, strict=True):
            image = decode_image(reader.read(crop_id, "jpg"))
            rows, columns = np.nonzero(image[..., 0] > 60)
            np.testing.assert_allclose(
                [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1], box, atol=1
            )


def test_any_order_gives_the_same_bytes(ws: Workspace) -> None:
    files = [ws.stage_dir("crops") / f"{shard}.tar" for shard in crop_shards(CONFIG)]
    files += [ws.table_path("crops", shard) for shard in crop_shards(CONFIG)]
    for shard in crop_shards(CONFIG):
        run_shard(ws, CONFIG, shard)
    before = [path.read_bytes() for path in files]
    for shard in reversed(crop_shards(CONFIG)):
        run_shard(ws, CONFIG, shard)
    assert [path.read_bytes() for path in files] == before


def test_a_head_that_cannot_be_drawn_is_excluded(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(
        head_model: HeadModel, config: object, rng: np.random.Generator, size: int
    ) -> SingleHead:
        head = draw(head_model, config, rng, size)
        if 0.5 < head.visible < 0.7:
            raise ValueError("hidden in 5 draws")
        return head

    monkeypatch.setattr(crops, "render_single_head", fail_once)
    report = run_shard(ws, CONFIG, "crops-00000")
    exclusions = read_exclusions(ws, ["crops"])
    assert report.num_excluded == len(exclusions) > 0
    undrawn = exclusions[exclusions["reason"] == "not_drawn"]
    assert undrawn["detail"].tolist() == ["hidden in 5 draws"] * len(undrawn)
    assert len(undrawn) > 0


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError])
def test_an_error_of_the_program_is_no_head_that_cannot_be_drawn(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def wrong(*given: object) -> SingleHead:
        raise error("hair_style")

    monkeypatch.setattr(crops, "render_single_head", wrong)
    with pytest.raises(error):
        run_shard(ws, CONFIG, "crops-00000")


def test_errors(ws: Workspace) -> None:
    with pytest.raises(ValueError, match="unknown shard 'crops-00009', expected one of"):
        run_shard(ws, CONFIG, "crops-00009")
    strict = CONFIG.model_copy(update={"max_drop_rate": 0.0})
    with pytest.raises(TooManyExcluded, match=r"crops-00000: \d of 10 heads excluded"):
        run_shard(ws, strict, "crops-00000")
