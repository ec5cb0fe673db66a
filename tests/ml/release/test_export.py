"""Exports: their content in other tools, and restrictions by licences."""

import io
import json
import tarfile

import numpy as np
import pytest
import yaml

from ml.imaging.io import decode_image
from ml.labels.coco import read_coco
from ml.records.exclusions import Exclusions
from ml.records.register import LicenceError
from ml.records.tables import read_table
from ml.release.coco_export import PARAMETERS
from ml.release.export import FORMATS, ExportRequest, export_dataset
from ml.release.source import iter_dataset

OPEN = ("renderer", "open-head", "crop-regressor")
CARD = "---\npretty_name: heads\n---\n# Heads\n\n![overview](plots/overview.png)\n"


@pytest.fixture
def exported(dataset, tmp_path):
    folder = dataset.stage_dir("filtered_dataset")
    (folder / "CARD.md").write_text(CARD)
    (folder / "plots").mkdir()
    (folder / "plots" / "overview.png").write_bytes(b"png")

    def run(name, **options):
        target = tmp_path / name
        report = export_dataset(dataset, ExportRequest(name, target, OPEN, **options))
        assert report.num_in == report.num_out
        return target

    return run


def items_by_id(dataset):
    return {item.sample_id: item for item in iter_dataset(dataset, Exclusions("export"))}


def test_coco_reads_back_with_its_parameters(exported, dataset):
    target = exported("coco")
    items = items_by_id(dataset)
    seen = 0
    for split in ("train", "val", "test"):
        coco = read_coco(target / "annotations" / f"{split}.json")
        table = read_table(target / "parameters" / f"{split}.parquet", PARAMETERS)
        flame = dict(zip(table["annotation_id"], table["flame"], strict=True))
        for image in coco.images:
            item = items[image.sample_id]
            assert item.split == split
            path = target / "images" / image.file_name
            assert decode_image(path).shape[:2] == (item.height, item.width)
            boxes = coco.boxes_of(image.image_id)
            assert [not box.ignore for box in boxes] == item.flame_valid.tolist()
            for head, box in enumerate(boxes):
                if item.flame_valid[head]:
                    np.testing.assert_array_equal(flame[box.annotation_id], item.flame[head])
            seen += 1
    assert seen == len(items) == 6
    assert not list(target.rglob(".tmp-*"))


def test_webdataset_shards_hold_everything(exported, dataset):
    target = exported("webdataset")
    items = items_by_id(dataset)
    found = {}
    for path in sorted(target.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    assert set(found) == set(items)
    sample, item = found["image-a3"], items["image-a3"]
    assert sample["jpg"] == item.jpeg
    flame = np.load(io.BytesIO(sample["flame.npy"]))
    assert np.isnan(flame[1]).all()
    np.testing.assert_array_equal(flame[0], item.flame[0])
    facts = json.loads(sample["json"])
    assert facts["prompt"] == "people in image-a3"
    np.testing.assert_allclose(facts["boxes_xyxy"], item.boxes_xyxy, atol=1e-3)


def test_huggingface_parquet_says_what_it_holds(exported, dataset):
    import pyarrow.parquet as pq

    target = exported("huggingface")
    items = items_by_id(dataset)
    files = sorted(target.glob("data/*.parquet"))
    assert [path.name for path in files] == [
        "test-00000.parquet", "train-00000.parquet", "val-00000.parquet",
    ]  # fmt: skip
    table = pq.read_table(files[1])
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert set(features) == set(table.column_names)
    for row in table.to_pylist():
        item = items[row["sample_id"]]
        assert row["image"]["bytes"] == item.jpeg
        np.testing.assert_array_equal(
            np.array(row["flame"], np.float32)[item.flame_valid], item.flame[item.flame_valid]
        )
    card = (target / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pretty_name"] == "heads"
    assert {"split": "validation", "path": "data/val-*.parquet"} in (
        front["configs"][0]["data_files"]
    )
    assert (target / "plots" / "overview.png").exists()


def test_huggingface_datasets_loads_it(exported, dataset):
    import datasets

    target = exported("huggingface")
    loaded = datasets.load_dataset(str(target), cache_dir=str(target.parent / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {
        "train": 3, "validation": 2, "test": 1,
    }  # fmt: skip
    assert loaded["train"][0]["image"].size == (120, 90)


@pytest.mark.parametrize("name", list(FORMATS))
def test_equal_datasets_give_equal_exports(dataset, tmp_path, name):
    for turn in ("one", "two"):
        export_dataset(dataset, ExportRequest(name, tmp_path / turn, OPEN))
    first, second = (
        {
            str(path.relative_to(tmp_path / turn)): path.read_bytes()
            for path in (tmp_path / turn).rglob("*")
            if path.is_file()
        }
        for turn in ("one", "two")
    )
    assert first == second
    assert len(first) > 4
    licences = json.loads(first["licences.json"])
    assert licences["commercial_use"] is True
    assert {row["name"] for row in licences["parents"]} == set(OPEN)


def test_a_forbidding_parent_is_named_and_nothing_is_written(dataset, tmp_path):
    target = tmp_path / "out"
    with pytest.raises(LicenceError, match="export is forbidden by flame-2020"):
        export_dataset(dataset, ExportRequest("coco", target, (*OPEN, "flame-2020")))
    with pytest.raises(LicenceError, match=r"commercial export is forbidden by dad-3dnet \(CC-BY"):
        export_dataset(dataset, ExportRequest("coco", target, (*OPEN, "dad-3dnet"), True))
    with pytest.raises(KeyError, match="'nobody' is unknown"):
        export_dataset(dataset, ExportRequest("coco", target, ("nobody",)))
    assert not target.exists()
    # The same is fine for research.
    export_dataset(dataset, ExportRequest("coco", target, (*OPEN, "dad-3dnet")))
    assert json.loads((target / "licences.json").read_text())["commercial_use"] is False


def test_wrong_requests(dataset, tmp_path):
    with pytest.raises(ValueError, match="expected a format of"):
        export_dataset(dataset, ExportRequest("yolo", tmp_path / "out", OPEN))
    with pytest.raises(ValueError, match=r"unknown splits \['dev'\]"):
        export_dataset(dataset, ExportRequest("coco", tmp_path / "out", OPEN, splits=("dev",)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(ValueError, match="is there already"):
        export_dataset(dataset, ExportRequest("coco", tmp_path / "full", OPEN))


def test_damage_is_counted_and_written_down(dataset, tmp_path):
    path = dataset.stage_dir("images") / "shard-00001.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8") + 400] ^= 1
    path.write_bytes(bytes(data))
    report = export_dataset(dataset, ExportRequest("webdataset", tmp_path / "out", OPEN))
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 5, 1)
    assert "damaged_image" in (tmp_path / "out" / "exclusions.csv").read_text()
