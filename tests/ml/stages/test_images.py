"""The images stage: files, counts, exclusions and equal bytes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ml.captions.scene import NO_SCENE, Scene
from ml.generation import backends
from ml.generation.backends import GENERATORS
from ml.generation.config import ImagesConfig
from ml.imaging.io import decode_image
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.lineage import sample_lineage
from ml.records.shards import ShardReader
from ml.records.tables import CAPTIONS, IMAGES, POSES, TRUTH, read_table, write_table
from ml.records.workspace import Workspace
from ml.stages.images import run_shard

SHARD = "shard-00000"


@pytest.fixture
def workspace(tmp_path, head_model, make_person, make_look):
    """Three poses with a caption each; the second pose was estimated and has no depth."""
    ws = Workspace(root=tmp_path, seed=11, num_shards=1, shard_size=3)
    head_model.save(ws.stage_dir("head_model") / "head_model.npz")
    poses, captions = [], []
    for index in range(3):
        person = make_person(x=30.0 + 10 * index)
        row = {
            "pose_id": f"pose-{index}", "person_id": 0, "split": "train", "width": 96, "height": 96,
            "num_people": 1, "layout": "portrait", "depth": 0,
            "keypoints": person.keypoints.reshape(-1),
            "joints_m": person.joints_m.reshape(-1),
            "head_rotation": person.head_rotation.reshape(-1),
            "scale_px_per_m": person.scale_px_per_m, "shift_px": person.shift_px,
            "head_centre_m": person.head_centre_m,
        }  # fmt: skip
        if index == 1:
            row |= {"joints_m": None}
        poses.append(row)
        scene = Scene("a studio", "overcast light", (make_look(skin_tone=index + 1),))
        captions.append(
            {
                "sample_id": f"image-{index}",
                "pose_id": f"pose-{index}",
                "split": "train",
                "num_people": 1,
                "caption": "a person",
                "prompt": "a person" + ", quite a long description" * (40 if index == 2 else 0),
                "negative_prompt": "",
                "choices": "{}",
                "scene": scene.to_json(),
                "captioner": "test",
                "seed": index,
            }
        )
    write_table(ws.table_path("poses", SHARD), pd.DataFrame(poses), POSES)
    write_table(ws.table_path("captions", SHARD), pd.DataFrame(captions), CAPTIONS)
    return ws


def test_a_shard_is_complete_and_its_bytes_repeat(workspace):
    config = ImagesConfig(max_drop_rate=0.5)
    report = run_shard(workspace, config, SHARD)
    assert (report.num_in, report.num_out, report.num_excluded) == (3, 2, 1)
    images = read_table(workspace.table_path("images", SHARD), IMAGES)
    truth = read_table(workspace.table_path("truth", SHARD), TRUTH)
    assert list(images["sample_id"]) == ["image-0", "image-2"]
    assert list(truth["skin_tone"]) == [1, 3]
    tar = workspace.stage_dir("images") / f"{SHARD}.tar"
    reader = ShardReader(tar)
    encoded = reader.read("image-0", "jpg")
    row = images.iloc[0]
    assert tar.read_bytes()[row["offset"] : row["offset"] + row["size"]] == encoded
    assert decode_image(encoded).shape == (96, 96, 3)
    assert json.loads(reader.read("image-0", "json"))["pose_id"] == "pose-0"
    files = [tar, *sorted(workspace.root.rglob("*.parquet")), *report.images.values()]
    before = [path.read_bytes() for path in files]
    run_shard(workspace, config, SHARD)
    assert before == [path.read_bytes() for path in files]


def test_a_sample_that_cannot_be_drawn_is_excluded_with_its_reason(workspace):
    run_shard(workspace, ImagesConfig(max_drop_rate=0.5), SHARD)
    (row,) = read_exclusions(workspace, ["images"]).to_dict("records")
    assert row["sample_id"] == "image-1"
    assert row["reason"] == "not_drawn"
    assert "pose-1: person 0 has no third dimension" in row["detail"]


def test_a_programming_error_is_no_sample_that_cannot_be_drawn(workspace, monkeypatch):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(backends, "render_sample", broken)
    for error in (KeyError("hair"), TypeError("float"), IndexError("5")):
        with pytest.raises(type(error)):
            run_shard(workspace, ImagesConfig(max_drop_rate=1.0), SHARD)
    error = ValueError("the head lies behind the camera")
    report = run_shard(workspace, ImagesConfig(max_drop_rate=1.0), SHARD)
    assert (report.num_out, report.num_excluded) == (0, 3)
    details = read_exclusions(workspace, ["images"])["detail"]
    assert details.str.contains("the head lies behind the camera").sum() >= 2


def test_a_scene_that_nobody_can_draw_is_excluded_alone(workspace):
    path = workspace.table_path("captions", SHARD)
    captions = read_table(path, CAPTIONS)
    captions.loc[0, "scene"] = captions.loc[0, "scene"].replace('"hat": "', '"hat": "top ')
    write_table(path, captions, CAPTIONS)
    report = run_shard(workspace, ImagesConfig(max_drop_rate=1.0), SHARD)
    assert report.num_out == 1
    details = read_exclusions(workspace, ["images"]).set_index("sample_id")["detail"]
    assert "people[0].hat: expected one of" in details["image-0"]


def test_too_many_exclusions_fail_the_shard(workspace):
    with pytest.raises(TooManyExcluded, match=r"shard-00000: 1 of 3 samples excluded.*max_drop"):
        run_shard(workspace, ImagesConfig(), SHARD)
    assert not workspace.table_path("images", SHARD).exists()


def test_truth_boxes_lie_inside_the_image(workspace):
    run_shard(workspace, ImagesConfig(max_drop_rate=0.5), SHARD)
    truth = read_table(workspace.table_path("truth", SHARD), TRUTH)
    boxes = np.stack(list(truth["bbox_xywh"]))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 96).all()


def test_every_configured_backend_has_a_generator():
    names = ImagesConfig.model_fields["backend"].annotation.__args__
    assert set(names) == set(GENERATORS)


def test_quality_range_must_be_ordered():
    with pytest.raises(ValueError, match="jpeg_quality_min must not exceed"):
        ImagesConfig(jpeg_quality_min=90, jpeg_quality_max=80)


def test_a_diffusion_backend_writes_no_truth_and_its_settings(workspace, tiny_models):
    models = {
        "base": {"path": str(tiny_models.path("sdxl")), "asset": "random-weights"},
        "conditioner": {"path": str(tiny_models.path("t2i-adapter")), "asset": "random-weights"},
    }
    config = ImagesConfig(backend="sdxl-t2i", diffusion={**models, "steps": 2})
    report = run_shard(workspace, config, SHARD)
    # The pose without a third dimension has keypoints, and no more is needed.
    assert (report.num_in, report.num_out) == (3, 3)
    assert not len(read_table(workspace.table_path("truth", SHARD), TRUTH))
    with ShardReader(workspace.stage_dir("images") / f"{SHARD}.tar") as reader:
        record = reader.read_json("image-1")
    assert record["generator"] == "sdxl-t2i"
    assert record["settings"]["prompt_tokens"] > 2
    assert record["settings"]["prompt_is_cut"] is False
    assert report.metadata["prompts_cut"] == 1
    assert record["settings"]["algorithm"] == "sde-dpmsolver++"
    assert [model["asset"] for model in record["settings"]["models"]] == ["random-weights"] * 2
    assert sample_lineage(workspace, "image-1")["settings"] == record["settings"]


def test_the_pncc_backend_writes_the_truth_it_was_given(workspace, tiny_models):
    models = {
        "base": {"path": str(tiny_models.path("sdxl")), "asset": "random-weights"},
        "conditioner": {
            "path": str(tiny_models.path("sdxl-controlnet")),
            "asset": "random-weights",
        },
    }
    config = ImagesConfig(backend="sdxl-pncc", diffusion={**models, "steps": 1}, max_drop_rate=0.5)
    report = run_shard(workspace, config, SHARD)
    assert (report.num_out, report.num_excluded) == (2, 1)
    truth = read_table(workspace.table_path("truth", SHARD), TRUTH)
    assert list(truth["sample_id"]) == ["image-0", "image-2"]
    assert list(truth["skin_tone"]) == [1, 3]
    assert set(truth["hair_style"]) == {"unknown"}


def test_a_caption_without_a_scene_cannot_be_rendered(workspace):
    path = workspace.table_path("captions", SHARD)
    write_table(path, read_table(path, CAPTIONS).assign(scene=NO_SCENE), CAPTIONS)
    run_shard(workspace, ImagesConfig(max_drop_rate=1.0), SHARD)
    details = read_exclusions(workspace, ["images"])["detail"]
    assert len(details) == 3
    assert details.str.contains("the caption has no scene; the renderer needs").all()
