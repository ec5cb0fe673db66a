from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import ml.stages.annotations as stage
from ml.annotation.landmark_fit import LandmarkFitConfig
from ml.annotation.landmark_regressor import LandmarkRegressor
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.io import encode_jpeg
from ml.records.determinism import one_thread
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.shards import shard_writer
from ml.records.tables import HEADS, IMAGES, read_table, stack, write_table
from ml.records.workspace import Workspace
from ml.stages.annotations import STAGE, AnnotationsConfig, Annotator, annotate_shard

SHARD = "shard-00000"
CONFIG = AnnotationsConfig(images_per_batch=2, max_drop_rate=0.5, min_side_px=14.0)


@pytest.fixture(scope="session")
def head_model(ball_head: HeadModel) -> HeadModel:
    return ball_head


class BrightSpotDetector:
    """Finds the white rectangles of the test images; a second, weaker box doubles each."""

    name = "bright_spot"
    sha256 = "d" * 64

    def detect(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for image in images:
            boxes = np.array(boxes_of(image), np.float32).reshape(-1, 4)
            scores = np.linspace(0.9, 0.8, len(boxes), dtype=np.float32)
            doubled = np.concatenate([boxes, boxes + 1])
            found.append((doubled, np.concatenate([scores, scores / 1.5])))
        return found


def boxes_of(image: np.ndarray) -> list[list[float]]:
    """Test images are columns of 64 px with at most one rectangle each."""
    boxes = []
    for left in range(0, image.shape[1], 64):
        rows, columns = np.nonzero(image[:, left : left + 64, 0] > 128)
        if len(rows):
            low_x, high_x = left + columns.min(), left + columns.max() + 1
            boxes.append([low_x, rows.min(), high_x, rows.max() + 1])
    return boxes


@dataclass
class CentredRegressor:
    """A frontal head in the middle of every crop; crops listed in `broken` give NaN."""

    name: str = "centred"
    sha256: str = "e" * 64
    crop_size: int = 32
    box_margin: float = 0.25
    broken: set[int] = field(default_factory=set)
    num_seen: int = 0

    def predict(self, crops: torch.Tensor) -> torch.Tensor:
        assert crops.shape[1:] == (3, 32, 32)
        assert crops.dtype == torch.uint8
        flame = torch.zeros(len(crops), 413)
        flame[:, 403:409] = torch.tensor([1.0, 0, 0, 0, -1, 0])
        flame[:, 409:411] = 16
        # The crop is 1.5 times the box; the ball's diameter is 0.2 m.
        flame[:, 412] = 32 / 1.5 / 0.2
        for index in range(len(crops)):
            if self.num_seen + index in self.broken:
                flame[index, 7] = torch.nan
        self.num_seen += len(crops)
        return flame


@pytest.fixture
def annotator(head_model: HeadModel) -> Annotator:
    return Annotator(BrightSpotDetector(), CentredRegressor(), head_model)


def draw_image(*heads: tuple[int, int, int, int]) -> np.ndarray:
    """64 x 192 px, black, with white rectangles (left, top, width, height)."""
    image = np.zeros((64, 192, 3), np.uint8)
    for left, top, width, height in heads:
        image[top : top + height, left : left + width] = 255
    return image


MakeShard = Callable[[dict[str, bytes]], Workspace]


@pytest.fixture
def make_shard(tmp_path: Path) -> MakeShard:
    """Writes one image shard and its table, and gives the workspace."""

    def make(encoded: dict[str, bytes]) -> Workspace:
        ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=len(encoded))
        rows = []
        with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
            for sample_id, data in encoded.items():
                spans = writer.add(sample_id, {"jpg": data, "json": {"id": sample_id}})
                rows.append(
                    {
                        "sample_id": sample_id,
                        "pose_id": f"pose-{sample_id}",
                        "split": "train",
                        "shard": "shard-00000",
                        "width": 192,
                        "height": 64,
                        "offset": spans["jpg"].offset,
                        "size": spans["jpg"].size,
                        "sha256": "0" * 64,
                        "seed": 1,
                        "generator": "test",
                        "num_people": 1,
                        "mean_luma": 10.0,
                    }
                )
        write_table(ws.table_path("images", "shard-00000"), pd.DataFrame(rows), IMAGES)
        return ws

    return make


@pytest.fixture
def encoded() -> dict[str, bytes]:
    """Five good images: two heads, one small head, none, one at the left border, one."""
    images = {
        "image-0": draw_image((10, 10, 30, 40), (80, 12, 24, 28)),
        "image-1": draw_image((70, 20, 8, 10)),
        "image-2": draw_image(),
        "image-3": draw_image((0, 8, 24, 40)),
        "image-4": draw_image((140, 16, 32, 32)),
    }
    return {name: encode_jpeg(image, 98) for name, image in images.items()}


def heads_of(ws: Workspace):
    return read_table(ws.table_path(STAGE, SHARD), HEADS)


def test_every_head_gets_a_row_in_the_image_frame(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    report = annotate_shard(ws, CONFIG, SHARD, annotator)
    assert (report.num_in, report.num_out, report.num_excluded) == (5, 5, 0)
    heads = heads_of(ws)
    assert heads["sample_id"].tolist() == ["image-0", "image-0", "image-1", "image-3", "image-4"]
    assert heads["head_id"].tolist() == [0, 1, 0, 0, 0]
    assert heads["flame_status"].tolist() == ["ok", "ok", "small", "ok", "ok"]
    assert heads["flame"].isna().tolist() == [False, False, True, False, False]
    boxes = stack(heads["bbox_xywh"])
    np.testing.assert_allclose(boxes[0], [10, 10, 30, 40], atol=1)
    labelled = heads[heads["flame_status"] == "ok"]
    flame = stack(labelled["flame"])
    # The ball of the fake regressor is as wide as the box's longer side and has its centre,
    # also where the crop reaches over the border.
    xywh = stack(labelled["bbox_xywh"])
    np.testing.assert_allclose(flame[:, 409:411], xywh[:, :2] + xywh[:, 2:] / 2, atol=1e-3)
    points = HeadGeometry(annotator.head_model).vertices_px(flame)
    np.testing.assert_allclose(
        np.ptp(points, axis=1).max(axis=1), xywh[:, 2:].max(axis=1), rtol=0.02
    )
    assert report.metadata["num_heads"] == 5
    assert report.metadata["num_heads_small"] == 1
    assert report.images[SHARD].is_file()


def test_every_row_names_its_teacher(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    annotate_shard(ws, CONFIG, SHARD, annotator)
    heads = heads_of(ws)
    assert set(heads["teacher"]) == {f"bright_spot:{'d' * 64} + centred:{'e' * 64}"}
    assert set(heads["head_model"]) == {annotator.head_model.sha256}
    assert set(heads["threshold"]) == {0.5}
    assert set(heads["source"]) == {"pseudo"}


def test_batches_and_reruns_give_the_same_bytes(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    results = []
    for size in (1, 2, 50):
        annotate_shard(ws, CONFIG.model_copy(update={"images_per_batch": size}), SHARD, annotator)
        results.append(ws.table_path(STAGE, SHARD).read_bytes())
    assert results[0] == results[1] == results[2]


def test_no_head_anywhere(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard({"image-2": encoded["image-2"]})
    report = annotate_shard(ws, CONFIG, SHARD, annotator)
    assert (report.num_in, report.num_out) == (1, 1)
    assert heads_of(ws).empty


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (
            lambda data: data[: len(data) // 2],
            "damaged_image",
            "shard-00000.tar/image-1.jpg: JPEG is truncated",
        ),
        (lambda data: b"", "damaged_image", "image is empty"),
        (lambda data: b"not an image", "damaged_image", "no known format"),
    ],
)
def test_a_damaged_image_is_excluded_and_others_are_unharmed(
    make_shard: MakeShard,
    encoded: dict[str, bytes],
    annotator: Annotator,
    damage,
    reason: str,
    detail: str,
) -> None:
    ws = make_shard(encoded)
    annotate_shard(ws, CONFIG, SHARD, annotator)
    expected = heads_of(ws)
    expected = expected[expected["sample_id"] != "image-1"].reset_index(drop=True)
    ws = make_shard(encoded | {"image-1": damage(encoded["image-1"])})
    report = annotate_shard(ws, CONFIG, SHARD, annotator)
    assert (report.num_in, report.num_out, report.num_excluded) == (5, 4, 1)
    exclusions = read_exclusions(ws, [STAGE])
    assert exclusions[["sample_id", "stage", "reason"]].to_numpy().tolist() == [
        ["image-1", STAGE, reason]
    ]
    assert detail in exclusions["detail"].iloc[0]
    heads = heads_of(ws)
    assert heads["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_array_equal(stack(heads["bbox_xywh"]), stack(expected["bbox_xywh"]))


def test_a_broken_tar_loses_only_what_lies_behind_the_break(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    tar = ws.stage_dir("images") / f"{SHARD}.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"image-3.jpg") + 700])
    report = annotate_shard(ws, CONFIG, SHARD, annotator)
    assert (report.num_in, report.num_out, report.num_excluded) == (5, 3, 2)
    exclusions = read_exclusions(ws, [STAGE])
    assert exclusions["sample_id"].tolist() == ["image-3", "image-4"]
    assert exclusions["detail"].str.contains("shard-00000.tar").all()
    assert set(heads_of(ws)["sample_id"]) == {"image-0", "image-1"}


def test_a_nan_parameter_is_named_and_its_head_stays_without_parameters(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    annotator = replace(annotator, regressor=CentredRegressor(broken={1}))
    report = annotate_shard(ws, CONFIG, SHARD, annotator)
    assert (report.num_out, report.num_excluded) == (5, 0)
    assert report.metadata["num_heads_non_finite"] == 1
    heads = heads_of(ws)
    assert heads["flame_status"].tolist() == ["ok", "non_finite", "small", "ok", "ok"]
    exclusions = read_exclusions(ws, [STAGE])
    assert exclusions["sample_id"].tolist() == ["image-0#1"]
    assert exclusions["reason"].tolist() == ["non_finite"]
    assert "centred: flame[7] is nan, expected a finite number" in exclusions["detail"].iloc[0]


class ExactLandmarks:
    """The landmarks of `CentredRegressor`'s heads; crops listed in `broken` are seen wrongly."""

    name, sha256, crop_size, box_margin, num_points = "exact", "f" * 64, 32, 0.25, 68

    def __init__(self, head_model: HeadModel, broken: set[int]) -> None:
        self.heads = CentredRegressor()
        self.geometry = HeadGeometry(head_model)
        self.broken = broken

    def find(self, crops: torch.Tensor) -> torch.Tensor:
        first = self.heads.num_seen
        points = self.geometry.landmarks_px(self.heads.predict(crops).numpy())
        for index in range(len(crops)):
            if first + index in self.broken:
                points[index] = np.random.default_rng(0).uniform(0, 32, (68, 2))
        return torch.from_numpy(points)


def test_heads_that_a_fit_does_not_find_stay_without_parameters_and_say_why(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(encoded)
    annotate_shard(ws, CONFIG, SHARD, annotator)
    centred = heads_of(ws)
    config = LandmarkFitConfig(iterations=30, num_shape=2, num_expression=1)
    predictor = ExactLandmarks(annotator.head_model, broken={1})
    teacher = LandmarkRegressor(predictor, annotator.head_model, config)
    report = annotate_shard(ws, CONFIG, SHARD, replace(annotator, regressor=teacher))
    assert report.metadata["num_heads_bad_fit"] == 1
    heads = heads_of(ws)
    assert heads["flame_status"].tolist() == ["ok", "bad_fit", "small", "ok", "ok"]
    assert set(heads["teacher"]) == {f"bright_spot:{'d' * 64} + landmark_fit(exact):{'f' * 64}"}
    exclusions = read_exclusions(ws, [STAGE])
    assert exclusions[["sample_id", "reason"]].to_numpy().tolist() == [["image-0#1", "bad_fit"]]
    assert "landmark_fit(exact): half of its landmarks lie" in exclusions["detail"].iloc[0]
    assert "head at [80.0, 12.0, 104.0, 40.0] px" in exclusions["detail"].iloc[0]
    good = heads["flame_status"] == "ok"
    found, expected = stack(heads["flame"][good]), stack(centred["flame"][good])
    np.testing.assert_allclose(found[:, 409:412], expected[:, 409:412], atol=0.2)
    # A larger ball and a larger scale look alike: what is fitted is where the landmarks are.
    geometry = HeadGeometry(annotator.head_model)
    np.testing.assert_allclose(
        geometry.landmarks_px(found), geometry.landmarks_px(expected), atol=0.2
    )
    np.testing.assert_allclose(found[:, 403:409], expected[:, 403:409], atol=0.02)


def test_a_nan_box_excludes_its_image(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    class Broken(BrightSpotDetector):
        def detect(self, images):
            found = super().detect(images)
            for boxes, _ in found:
                boxes[boxes[:, 0] > 130] = np.nan
            return found

    ws = make_shard(encoded)
    report = annotate_shard(ws, CONFIG, SHARD, replace(annotator, detector=Broken()))
    assert report.num_excluded == 1
    exclusions = read_exclusions(ws, [STAGE])
    assert exclusions[["sample_id", "reason"]].to_numpy().tolist() == [["image-4", "non_finite"]]


def test_too_many_drops_fail_the_stage(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator
) -> None:
    ws = make_shard(dict.fromkeys(encoded, b""))
    with pytest.raises(TooManyExcluded, match=r"shard-00000: 5 of 5 images .*max_drop_rate = 0.5"):
        annotate_shard(ws, CONFIG, SHARD, annotator)


def test_missing_shard_says_which_stage_to_run(tmp_path: Path, annotator: Annotator) -> None:
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=1)
    with pytest.raises(FileNotFoundError, match=r"images.*materialise its stage first"):
        annotate_shard(ws, CONFIG, SHARD, annotator)


def test_single_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_worker_loads_the_models_once_until_one_of_them_is_another(
    make_shard: MakeShard, encoded: dict[str, bytes], annotator: Annotator, monkeypatch
) -> None:
    ws = make_shard(encoded)
    loaded = []

    def load(*_: object) -> BrightSpotDetector:
        loaded.append(1)
        return BrightSpotDetector()

    monkeypatch.setattr(stage, "load_box_detector", load)
    monkeypatch.setattr(stage, "load_flame_regressor", lambda *_: CentredRegressor())
    monkeypatch.setattr(stage.HeadModel, "load", lambda _: annotator.head_model)
    for times, made_by in enumerate(("head_model", "head_detector", "flame_regressor"), start=1):
        folder = ws.stage_dir(made_by)
        folder.mkdir()
        (folder / "model.safetensors").write_text("weights")
        for _ in range(2):
            stage.run_shard(ws, CONFIG, SHARD)
        assert len(loaded) == times
    stage.run_shard(ws, CONFIG.model_copy(update={"device": "auto"}), SHARD)
    assert len(loaded) == 4
