"""Poses of source images: what is kept, what is refused, and that nothing else is written."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq
import pytest

from ml.imaging.io import decode_image
from ml.poses import estimation as images
from ml.poses.backends import ESTIMATORS
from ml.poses.config import EstimatorConfig, PosesConfig
from ml.poses.estimator import FoundPeople, to_pose
from ml.poses.skeleton import PoseSample
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.tables import POSE_SOURCES, POSES, read_table
from ml.records.workspace import Workspace
from ml.stages.poses import run_shard
from tests.ml.poses.source_files import (
    SECRET_CAPTION,
    SECRET_URL,
    image,
    jpeg,
    note,
    png_bomb,
    sample,
    write_tar,
)

SHARD = "shard-00000"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path, seed=3, num_shards=1, shard_size=10)


@pytest.fixture
def config(tiny_models):
    def model(name):
        return {"path": str(tiny_models.path(name)), "asset": "random-weights"}

    return PosesConfig(
        source="webdataset",
        images={
            "path": "source",
            "asset": "laion-face",
            "min_side_px": 64,
            "max_side_px": 96,
            "batch_size": 2,
            "estimator": {
                "person_detector": model("person-detector"),
                "pose_model": model("vitpose"),
                "threshold": 0.3,
            },
            "describer": {"model": model("blip-vqa"), "max_new_tokens": 6},
        },
        max_drop_rate=1.0,
    )


@pytest.fixture
def source(workspace):
    """Three good images between four that are refused, and a path that leads elsewhere."""
    members = [
        *sample("alice-1", jpeg(1), note()),
        *sample("alice-2", jpeg(2), note("NSFW")),
        *sample("alice-3", jpeg(3, 80, 96), note()),
        *sample("alice-4", jpeg(4, 176, 80), note()),
        *sample("alice-5", png_bomb(), note(), "png"),
        *sample("alice-6", b"\xff\xd8 no image", note()),
        *sample("alice-7", jpeg(7), note()),
        ("../alice-8.jpg", jpeg(8)),
    ]
    write_tar(workspace.root / "source" / "00000.tar", members)
    return members


def test_a_shard_keeps_skeletons_and_neutral_words(workspace, config, source):
    report = run_shard(workspace, config, SHARD)
    assert (report.num_in, report.num_out, report.num_excluded) == (8, 3, 5)
    poses = read_table(workspace.table_path("poses", SHARD), POSES)
    sources = read_table(workspace.table_path("poses", f"{SHARD}.sources"), POSE_SOURCES)
    ids = ["pose-00000-00000", "pose-00000-00002", "pose-00000-00006"]
    assert list(dict.fromkeys(poses["pose_id"])) == ids == list(sources["pose_id"])
    first = PoseSample.from_frame(poses[poses["pose_id"] == ids[0]])
    assert (first.width, first.height) == (64, 80)
    assert not first.people[0].is_3d
    assert sources["description"].str.contains("person|people").all()
    assert sources["description"].nunique() == 3
    assert set(sources["source"]) == {"laion-face"}
    assert set(read_exclusions(workspace, ["poses"])["reason"]) == {
        "unsafe_label", "aspect_ratio", "too_large", "damaged_image", "unsafe_path",
    }  # fmt: skip
    before = {p: p.read_bytes() for p in workspace.stage_dir("poses").rglob("*") if p.is_file()}
    run_shard(workspace, config, SHARD)
    assert before == {path: path.read_bytes() for path in before}


def test_nothing_of_a_source_is_written(workspace, config, source):
    """Looks through every file for its bytes, pixels, address, name and caption."""
    report = run_shard(workspace, config, SHARD)
    files = [p for p in workspace.root.rglob("*") if p.is_file() and "source" not in p.parts]
    assert len(files) >= 4
    words = " ".join([repr(report), *(text_of(path) for path in files)])
    for secret in (SECRET_URL, SECRET_CAPTION, "alice", "Garden", "example"):
        assert secret not in words, secret
    encoded = [data for name, data in source if name.endswith("jpg") and len(data) > 200]
    for path in files:
        data = path.read_bytes()
        for item in encoded:
            # Before the image's own data stand tables that many JPEGs share.
            for start in range(item.index(b"\xff\xda") + 14, len(item) - 32, 64):
                assert item[start : start + 32] not in data
    drawn = [path for path in files if path.suffix in (".jpg", ".png")]
    assert drawn
    originals = [image(seed).reshape(-1, 3) for seed in (1, 3, 7)]
    for path in drawn:
        seen = decode_image(path).reshape(-1, 3).astype(int)
        for original in originals:
            fractions = [
                np.mean(np.abs(seen - colour).max(axis=1) <= 6)
                for colour in np.unique(original, axis=0).astype(int)
            ]
            # Skeletons have a few colours on black and grey; the sources have thirty of their own.
            assert np.mean(np.array(fractions) > 1e-3) < 0.2


def test_the_scan_would_find_an_image(workspace, config, source):
    """The test above can fail: a source's blocks are all over a copy of it."""
    seen = image(1).reshape(-1, 3).astype(int)
    fractions = [
        np.mean(np.abs(seen - colour).max(axis=1) <= 6)
        for colour in np.unique(image(1).reshape(-1, 3), axis=0).astype(int)
    ]
    assert np.mean(np.array(fractions) > 1e-3) == 1.0


def text_of(path):
    """All text of a file: cells of a table, members of a tar, else its bytes."""
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), default=str)
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return " ".join(
                member.name + tar.extractfile(member).read().decode("latin-1") for member in tar
            )
    return path.read_bytes().decode("latin-1")


def test_too_many_refusals_fail_the_shard(workspace, config, source):
    strict = config.model_copy(update={"max_drop_rate": 0.5})
    with pytest.raises(TooManyExcluded, match=r"5 of 8 poses excluded, .*max_drop_rate"):
        run_shard(workspace, strict, SHARD)


def test_an_unregistered_source_is_refused(workspace, config, source):
    unknown = config.images.model_copy(update={"asset": "found-on-the-street"})
    with pytest.raises(KeyError, match="'found-on-the-street' is unknown"):
        run_shard(workspace, config.model_copy(update={"images": unknown}), SHARD)


@dataclass
class ScriptedEstimator:
    """Finds what it is told to."""

    found: list[FoundPeople]
    version: str = "scripted@0"
    closed: list[bool] = field(default_factory=list)

    def estimate(self, images_rgb):
        return [self.found.pop(0) for _ in images_rgb]

    def close(self):
        self.closed.append(True)


def test_images_without_people_are_excluded_and_the_estimator_is_closed(
    workspace, config, source, monkeypatch
):
    standing = FoundPeople(np.ones((1, 17, 3), np.float32) * (20, 30, 0.9), np.ones(1, np.float32))
    standing.keypoints[0, :, 1] += np.arange(17)
    unsure = FoundPeople(standing.keypoints * (1, 1, 0.1), np.ones(1, np.float32))
    scripted = ScriptedEstimator([FoundPeople.none(), unsure, standing])
    monkeypatch.setattr(images, "_load_estimator", lambda *_: scripted)
    report = run_shard(workspace, config, SHARD)
    assert report.num_out == 1
    excluded = read_exclusions(workspace, ["poses"])
    details = excluded[excluded["reason"] == "no_person"]["detail"].tolist()
    assert details == [
        "sample 0 of tar 0: 0 persons found, none can be drawn",
        "sample 2 of tar 0: 1 persons found, none can be drawn",
    ]
    assert scripted.closed == [True]


def test_a_pose_is_scaled_to_its_canvas_and_ordered_by_size():
    small = np.ones((17, 3), np.float32) * (10, 20, 1.4)
    small[:, 1] += np.arange(17)
    large = np.ones((17, 3), np.float32) * (50, 0, 0.8)
    large[:, 1] += 4 * np.arange(17)
    hidden = np.ones((17, 3), np.float32) * (1, 1, 0.2)
    broken = np.full((17, 3), np.nan, np.float32)
    found = FoundPeople(np.stack([small, hidden, large, broken]), np.ones(4, np.float32))
    pose = to_pose("pose-0", "val", found, (100, 200), (200, 100), EstimatorConfig())
    assert [person.depth for person in pose.people] == [0, 1]
    np.testing.assert_allclose(pose.people[0].keypoints[3], (100, 6, 0.8))
    np.testing.assert_allclose(pose.people[1].keypoints[0], (20, 10, 1.0))
    config = EstimatorConfig(max_people=1)
    assert len(to_pose("pose-0", "val", found, (9, 9), (9, 9), config).people) == 1


def test_wrong_shapes_of_people_are_named():
    with pytest.raises(ValueError, match=r"expected keypoints \(1, 17, 3\)"):
        FoundPeople(np.zeros((1, 18, 3), np.float32), np.zeros(1, np.float32))


def test_every_configured_estimator_exists():
    names = EstimatorConfig.model_fields["backend"].annotation.__args__
    assert set(names) == set(ESTIMATORS)


def test_the_tar_s_bytes_hold_the_secrets(source):
    """What the scan looks for is really in the source."""
    joined = io.BytesIO(b"".join(data for _, data in source)).read()
    assert SECRET_URL.encode() in joined
    assert SECRET_CAPTION.encode() in joined
