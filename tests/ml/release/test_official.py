"""The official layout: ours written and read back, theirs read, faults excluded."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ml.flame.frames import dad_crop_to_image
from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions
from ml.records.tables import DATASET_HEADS, IMAGES, VERDICTS, read_table
from ml.records.workspace import Workspace
from ml.release.archives import NotARelease
from ml.release.official import (
    BadAnnotation,
    ImageLabels,
    OfficialHeads,
    decode_annotation,
    encode_annotation,
    from_official,
    to_official,
)
from ml.release.official_import import import_official
from ml.release.official_reader import iter_release, split_of
from ml.release.official_writer import write_official
from ml.release.source import iter_dataset


def random_labels(count=40, size=1024, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size - 80, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(20, 80, (count, 2))], axis=1)
    flame = rng.normal(size=(count, 413))
    flame[:, 409:411] = rng.uniform(0, size, (count, 2))
    flame[:, 411] = 0
    flame[:, 412] = rng.uniform(40, 2000, count)
    return ImageLabels(
        boxes.astype(np.float32), flame.astype(np.float32), np.arange(count) % 5 != 4
    )


def test_the_parameters_survive_the_round_trip_in_the_image_frame():
    labels = random_labels()
    back = from_official(decode_annotation(encode_annotation(to_official(labels, 1024, 1024))))
    valid = labels.flame_valid
    assert back.flame_valid.sum() == valid.sum()
    assert len(back.boxes_xyxy) == len(labels.boxes_xyxy)
    np.testing.assert_allclose(back.flame[back.flame_valid], labels.flame[valid], atol=1e-4)
    np.testing.assert_allclose(
        back.boxes_xyxy[back.flame_valid], labels.boxes_xyxy[valid], atol=0.51
    )


def test_the_written_numbers_are_dads():
    # Worked by hand: box 40 wide from (100, 60), 25 % more on each side -> origin (90, 50).
    flame = np.zeros((1, 413), np.float32)
    flame[0, [409, 410, 412]] = 120, 80, 256
    box = np.array([[100, 60, 140, 100]], np.float32)
    heads = to_official(ImageLabels(box, flame, np.array([True])), 640, 480)
    assert heads.bbox_xywh.tolist() == [[100, 60, 40, 40]]
    assert heads.extended_xywh.tolist() == [[90, 50, 60, 60]]
    # s = 128 (S + 1), t = 128 (T + 1) + origin
    assert heads.params[0, 0, 412] == 1
    np.testing.assert_allclose(heads.params[0, 0, 409:411], [(120 - 90) / 128 - 1, 30 / 128 - 1])
    assert heads.params.shape == (1, 1, 413)
    assert heads.params.dtype == np.float32


def test_an_extended_box_at_the_border_keeps_its_far_side():
    box = np.array([[4, 0, 44, 40]], np.float32)
    heads = to_official(ImageLabels(box, np.ones((1, 413), np.float32), np.array([True])), 50, 45)
    assert heads.extended_xywh.tolist() == [[0, 0, 50, 45]]


def test_equal_annotations_give_equal_bytes():
    heads = to_official(random_labels(3), 1024, 1024)
    assert encode_annotation(heads) == encode_annotation(heads)
    # Heads without parameters are a fourth array; without them the file has the official three.
    assert "ignored_bbox" not in np.load(
        io.BytesIO(encode_annotation(to_official(random_labels(3), 1024, 1024)))
    )


def raw_annotation(**changes):
    arrays = {
        "bbox": np.array([[1, 2, 30, 40]]),
        "extended_bbox": np.array([[0, 0, 45, 60]]),
        "3dmm_params": np.zeros((1, 1, 413), np.float32),
    }
    arrays |= changes
    out = io.BytesIO()
    np.savez(out, **{key: value for key, value in arrays.items() if value is not None})
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable .npz"),
        (raw_annotation()[:200], "not a readable .npz"),
        (raw_annotation(bbox=None), r"keys \['bbox'\] are missing"),
        (raw_annotation(bbox=np.zeros((1, 4))), "no area"),
        (raw_annotation(bbox=np.ones((2, 4))), r"extended_bbox: expected shape \(2, 4\)"),
        (raw_annotation(bbox=np.array(["a"])), "expected numbers, got dtype"),
        (raw_annotation(bbox=np.array([[np.nan, 1, 1, 1]])), "no number"),
        (raw_annotation(bbox=np.array([{"a": 1}], dtype=object)), "expected numbers"),
        (
            raw_annotation(**{"3dmm_params": np.full((1, 1, 413), np.inf, np.float32)}),
            r"3dmm_params\[0, 0, 0\] is not finite",
        ),
        (
            raw_annotation(**{"3dmm_params": np.full((1, 1, 413), -2, np.float32)}),
            "scale must be over -1",
        ),
        (raw_annotation(**{"3dmm_params": np.zeros((1, 412))}), "expected shape"),
    ],
)
def test_bad_annotations_say_what_is_wrong(data, message):
    with pytest.raises(BadAnnotation, match=message):
        decode_annotation(data)


def test_a_file_that_claims_a_huge_array_is_refused_before_memory_is_asked_for():
    member = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (10**12, 4)}
    np.lib.format.write_array_header_1_0(member, header)
    out = io.BytesIO(raw_annotation(bbox=None))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("bbox.npy", member.getvalue())
    with pytest.raises(BadAnnotation, match="needs 32000000000000 bytes, the file has 0"):
        decode_annotation(out.getvalue())


def test_no_heads_at_all():
    empty = raw_annotation(
        bbox=np.array([]), extended_bbox=np.array([]), **{"3dmm_params": np.array([])}
    )
    assert len(decode_annotation(empty)) == 0
    labels = ImageLabels(np.zeros((0, 4)), np.zeros((0, 413)), np.zeros(0, bool))
    assert len(from_official(to_official(labels, 10, 10)).boxes_xyxy) == 0


def export(ws, root, **options):
    return write_official(iter_dataset(ws, Exclusions("export")), root, **options)


def test_our_dataset_written_and_imported_again(dataset, tmp_path):
    release = tmp_path / "release"
    assert export(dataset, release) == 6
    names = sorted(str(p.relative_to(release)) for p in release.rglob("*") if p.is_file())
    assert "large/split_00000/images/image-a1.jpg" in names
    assert "large/split_00002/annotations/image-b2.npz" in names
    assert "test/split_00000/images/image-b1.jpg" in names
    assert not [name for name in names if "image-a2" in name or "/." in name]
    for split in (*(release / "large").iterdir(), *(release / "test").iterdir()):
        assert (split / "files.txt").read_text() == ""
        assert json.loads((split / "metrics.json").read_text()) is not None
    report = import_official(release, tmp_path / "theirs", head_model="f" * 64)
    assert (report.num_in, report.num_out) == (6, 6)
    before = read_table(dataset.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    theirs = Workspace(tmp_path / "theirs", 0, num_shards=3, shard_size=1)
    folder = theirs.stage_dir("filtered_dataset")
    after = read_table(folder / "heads.parquet", DATASET_HEADS)
    before = before[before["flame_status"] == "ok"]
    after_ok = after[after["flame_status"] == "ok"]
    assert len(after_ok) == len(before) > 7
    assert set(after["split"]) == {"train", "val", "test"}
    for row in after_ok.to_dict("records"):
        mine = before[before["sample_id"] == row["sample_id"]]
        distance = [np.abs(f - row["flame"]).max() for f in mine["flame"]]
        assert min(distance) < 1e-4
        assert row["split"] == mine["split"].iloc[0]
    # The head that is too small to be labelled is still known, and not background.
    assert after[after["flame_status"] == "small"]["sample_id"].tolist() == [
        "image-a3",
        "image-b1",
    ]
    verdicts = read_table(folder / "verdicts.parquet", VERDICTS)
    assert verdicts["keep"].all()
    assert verdicts.set_index("sample_id")["stability"]["image-a0"] == pytest.approx(0.8)
    images = read_table(theirs.table_path("images", "shard-00001"), IMAGES)
    assert images["sample_id"].tolist() == ["image-a0", "image-a3", "image-b2"]


def test_an_imported_release_feeds_the_training(dataset, tmp_path):
    from ml.stages.trained_model import TrainedModelConfig, read_labels, read_samples
    from ml.training_data.samples import kept_images

    export(dataset, tmp_path / "release")
    import_official(tmp_path / "release", tmp_path / "theirs")
    ws = Workspace(tmp_path / "theirs", 0, num_shards=3, shard_size=1)

    class Flat:
        @staticmethod
        def vertices_px(flame):
            return np.zeros((len(flame), 20, 2), np.float32)

    labels = read_labels(ws, TrainedModelConfig(), Flat())
    images = kept_images(ws, "train")
    samples = read_samples("train", *images, labels, 1, Exclusions("training"))
    assert samples.sample_ids == ["image-a0", "image-a3", "image-b2"]
    assert len(samples[2].labels) == 3


def read_all(source, exclusions):
    return [sample for part in iter_release(source, exclusions) for sample in part]


@pytest.fixture
def release(tmp_path):
    """Five images in one split: good, listed, without annotation, damaged twice."""
    split = tmp_path / "large" / "split_00005"
    for name in ("images", "annotations"):
        (split / name).mkdir(parents=True)
    jpeg = encode_jpeg(np.full((60, 80, 3), 90, np.uint8))
    for name in ("good", "listed", "alone", "cut", "wrong"):
        (split / "images" / f"{name}.jpg").write_bytes(jpeg)
        (split / "annotations" / f"{name}.npz").write_bytes(raw_annotation())
    (split / "annotations" / "alone.npz").unlink()
    (split / "images" / "cut.jpg").write_bytes(jpeg[:100])
    (split / "annotations" / "wrong.npz").write_bytes(b"PK")
    (split / "annotations" / "lost.npz").write_bytes(raw_annotation())
    (split / "files.txt").write_text("listed.jpg\n")
    rows = [{"filename": "good.jpg", "num_heads": 1, "stability_metric": 0.5}]
    (split / "metrics.json").write_text(json.dumps(rows))
    return tmp_path


REASONS = {
    "listed": "exclusion_list",
    "alone": "no_annotation",
    "cut": "damaged_image",
    "wrong": "damaged_annotation",
    "lost": "no_image",
}


def test_a_published_split_is_read_and_everything_else_excluded(release):
    exclusions = Exclusions("read")
    (sample,) = read_all(release, exclusions)
    assert (sample.sample_id, sample.stability) == ("good", 0.5)
    assert sample.labels.boxes_xyxy.tolist() == [[1, 2, 31, 42]]
    expected = dad_crop_to_image(np.zeros((1, 413)), np.array([[0.0, 0, 45, 60]]))
    np.testing.assert_array_equal(sample.labels.flame, expected)
    frame = exclusions.to_frame()
    assert dict(zip(frame["sample_id"], frame["reason"], strict=True)) == REASONS
    assert split_of("split_00001") == "val"
    assert split_of("split_00002") == "train"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_release_is_read_from_its_tar_split_by_split(release, tmp_path, mode):
    second = release / "large" / "split_00006"
    for name in ("images", "annotations"):
        (second / name).mkdir(parents=True)
    first = release / "large" / "split_00005"
    (second / "images" / "other.jpg").write_bytes((first / "images/good.jpg").read_bytes())
    (second / "annotations" / "other.npz").write_bytes(raw_annotation())
    path = tmp_path / "VGGHeads.tar"
    with tarfile.open(path, mode) as tar:
        tar.add(release / "large", "VGGHeads/large")
        evil = tarfile.TarInfo("large/split_00009/images/../../../evil.jpg")
        tar.addfile(evil, io.BytesIO())
        link = tarfile.TarInfo("large/split_00009/images/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    exclusions = Exclusions("read")
    found = [[s.sample_id for s in split] for split in iter_release(path, exclusions)]
    assert found == [["good"], ["other"]]
    reasons = exclusions.to_frame().set_index("sample_id")["reason"].to_dict()
    assert reasons == {**REASONS, "evil": "bad_member", "link": "bad_member"}
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_tar_that_breaks_gives_what_came_before(release, tmp_path):
    path = tmp_path / "VGGHeads.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(release / "large/split_00005", "large/split_00005")
        tar.add(release / "large/split_00005/images/good.jpg", "large/split_00006/images/x.jpg")
    path.write_bytes(path.read_bytes()[:-14_000])
    exclusions = Exclusions("read")
    found = [s.sample_id for split in iter_release(path, exclusions) for s in split]
    assert found == ["good"]
    rows = exclusions.to_frame()
    assert dict(zip(rows["sample_id"], rows["reason"], strict=True)) == {
        **REASONS,
        "VGGHeads": "damaged_tar",
    }
    assert "VGGHeads.tar breaks after byte 37059" in rows["detail"][0]


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 2048])
def test_no_release(tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(NotARelease):
        list(iter_release(path, Exclusions("read")))
    path.unlink()
    with pytest.raises(NotARelease, match="no folder split_00000"):
        read_all(tmp_path, Exclusions("read"))


def test_an_unreadable_exclusion_list_stops_the_reading(release):
    (release / "large/split_00005/files.txt").write_bytes(b"\xff\xfe\x00bad\x80")
    with pytest.raises(NotARelease, match="not a list of names"):
        read_all(release, Exclusions("read"))


def test_heads_are_checked_when_built():
    with pytest.raises(BadAnnotation, match=r"3dmm_params: expected shape \(1, 1, 413\)"):
        OfficialHeads(
            np.ones((1, 4), np.int32), np.ones((1, 4), np.int32), np.zeros((1, 413), np.float32)
        )


def test_val_fills_its_two_splits_and_the_folder_is_whole(dataset, tmp_path):
    export(dataset, tmp_path / "r", images_per_split=1)
    found = {
        split.name: sorted(path.stem for path in (split / "images").iterdir())
        for split in (tmp_path / "r" / "large").iterdir()
    }
    assert found == {
        "split_00000": ["image-a1"],
        "split_00001": ["image-b0"],
        "split_00002": ["image-a0"],
        "split_00003": ["image-a3"],
        "split_00004": ["image-b2"],
    }
    assert Path(tmp_path / "r" / "test").is_dir()
