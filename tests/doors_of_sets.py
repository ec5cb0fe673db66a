"""Readers of labels, releases and models: of folders too, one of whose files is damaged.

Each accounts for all items: what is given to it is read, or excluded by name.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tests.doors import Door, Files, all_there

SAMPLES = ("a", "b", "c")
SIDE = 32


def doors() -> dict[str, Door]:
    """All of them by name."""
    from ml.inference.loading import load_detector, read_detector
    from ml.inference.runtimes import UnusableModel
    from ml.labels.tool_import import LabelImportError
    from ml.release.archives import NotARelease

    return {
        "Label Studio": Door(_labels, (LabelImportError,), studio_file),
        "COCO of a tool": Door(_labels, (LabelImportError,), cvat_file),
        "release tar": Door(_release_tar, (NotARelease,), release_tar),
        "release folder": Door(_release_folder, (NotARelease,), release_parts),
        "weight file": Door(read_detector, (UnusableModel,), weight_pickle, weights_around),
        "model folder": Door(
            lambda path: read_detector(_model_folder(path)), (UnusableModel,), model_headers
        ),
        "ONNX": Door(
            lambda path: load_detector(path, runtime="onnxruntime"), (UnusableModel,), onnx_file
        ),
    }


# ------------------------------------------------------------------ labels
def studio_file() -> Files:
    """Tasks as Label Studio exports them: percents, one region a box."""

    def region(number: int) -> dict[str, Any]:
        value = {"x": 10.0 * number, "y": 10, "width": 8.5, "height": 20, "rotation": 0}
        return {
            "id": f"r{number}", "type": "rectanglelabels", "from_name": "label",
            "to_name": "image", "original_width": SIDE, "original_height": SIDE,
            "image_rotation": 0, "value": {**value, "rectanglelabels": ["head"]},
        }  # fmt: skip

    tasks = [
        {
            "id": number, "data": {"image": f"/data/local-files/?d=images/{name}.jpg"},
            "annotations": [{"id": number, "was_cancelled": False, "ground_truth": False,
                             "result": [region(n) for n in range(number)]}],
        }
        for number, name in enumerate(SAMPLES)
    ]  # fmt: skip
    return [(".json", json.dumps(tasks).encode())]


def cvat_file() -> Files:
    """Boxes as CVAT exports them."""
    images = [
        {"id": number, "file_name": f"{name}.jpg", "width": SIDE, "height": SIDE}
        for number, name in enumerate(SAMPLES, start=1)
    ]
    boxes = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "bbox": [n, 2, 5.5, 6], "area": 33.0,
         "iscrowd": 0, "segmentation": [], "attributes": {"occluded": False, "rotation": 0.0}}
        for n in range(4)
    ]  # fmt: skip
    content = {"images": images, "categories": [{"id": 1, "name": "head"}], "annotations": boxes}
    return [(".json", json.dumps(content).encode())]


def _labels(path: Path) -> int:
    from ml.labels.tool_import import import_labels
    from ml.records.exclusions import Exclusions

    rows = [
        {"sample_id": name, "split": "train", "shard": "s", "width": SIDE, "height": SIDE}
        for name in SAMPLES
    ]
    exclusions = Exclusions("labels")
    result = import_labels(path, pd.DataFrame(rows), exclusions)
    content = json.loads(path.read_bytes())
    tasks = content if isinstance(content, list) else content["images"]
    images = [image for data in result.datasets.values() for image in data.images]
    excluded = exclusions.to_frame()["sample_id"].tolist()
    regions = sum(name.partition("#")[0] in {i.sample_id for i in images} for name in excluded)
    regions += sum(len(data.boxes) for data in result.datasets.values())
    all_there(regions, _regions(content, {image.sample_id for image in images}))
    return all_there(len(images) + sum("#" not in name for name in excluded), len(tasks))


def _regions(content: Any, names: set[str]) -> int:
    """Return how many regions a file has for some images."""
    if isinstance(content, dict):
        kept = {i["id"] for i in content["images"] if Path(i["file_name"]).stem in names}
        return sum(box["image_id"] in kept for box in content["annotations"])
    return sum(
        len(task["annotations"][-1]["result"])
        for task in content
        if Path(task["data"]["image"]).stem in names
    )


# ------------------------------------------------------------------ releases
@cache
def release_files() -> dict[str, bytes]:
    """Path -> content of a small release in the published layout."""
    from ml.imaging.io import encode_jpeg
    from tests.doors import annotation_files

    jpeg = encode_jpeg(np.full((40, 40, 3), 90, np.uint8))
    files = {}
    for part, names in (("large/split_00000", SAMPLES[:2]), ("large/split_00001", SAMPLES[2:])):
        for name in names:
            files[f"{part}/images/{name}.jpg"] = jpeg
            files[f"{part}/annotations/{name}.npz"] = annotation_files()[0][1]
        files[f"{part}/files.txt"] = b""
        rows = [{"filename": f"{name}.jpg", "stability_metric": 0.5} for name in names]
        files[f"{part}/metrics.json"] = json.dumps(rows).encode()
    return files


def release_tar() -> Files:
    """It in a tar, as it is published."""
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in release_files().items():
            info = tarfile.TarInfo(f"VGGHeads/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return [(".tar", out.getvalue())]


def _release_tar(path: Path) -> int:
    return _read_release(path, may_break=True)


_PLACES = {
    ".jpg": "large/split_00000/images/a.jpg",
    ".npz": "large/split_00000/annotations/a.npz",
    ".json": "large/split_00000/metrics.json",
    ".txt": "large/split_00000/files.txt",
}


def release_parts() -> Files:
    """A file of each kind in it, which stands in a folder with the whole others."""
    files = release_files()
    lists = [(".txt", b"other.jpg\nanother.jpg\n")]
    return [(suffix, files[name]) for suffix, name in _PLACES.items() if suffix != ".txt"] + lists


def _release_folder(path: Path) -> int:
    root = path.parent / "release"
    for name, data in release_files().items():
        file = root / name
        if not file.exists() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    (root / _PLACES[path.suffix]).write_bytes(path.read_bytes())
    return _read_release(root)


def _read_release(source: Path, may_break: bool = False) -> int:
    from ml.records import reasons
    from ml.records.exclusions import Exclusions
    from ml.release.official_reader import iter_release

    exclusions = Exclusions("release")
    found = [sample.sample_id for part in iter_release(source, exclusions) for sample in part]
    frame = exclusions.to_frame()
    # Names behind a break are unknown; the tar, and where it broke, is named.
    broke = may_break and reasons.DAMAGED_TAR in set(frame["reason"])
    return all_there(len({*found, *frame["sample_id"]} & {*SAMPLES}), len(SAMPLES), broke)


# ------------------------------------------------------------------ models
@cache
def _tiny() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from ml.inference.loading import describe
    from ml.model.building import build_detector
    from ml.model.postprocess import PostprocessConfig
    from tests.tiny_models.detector import tiny_detector

    network = build_detector(tiny_detector()).eval()
    return describe(network, 64, PostprocessConfig(), None, {}), network.state_dict()


@cache
def _saved() -> dict[str, bytes]:
    """Members of a checkpoint of torch.save."""
    out = io.BytesIO()
    torch.save({"net": _tiny()[1]}, out)
    with zipfile.ZipFile(io.BytesIO(out.getvalue())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def weight_pickle() -> Files:
    """The pickle in a file of weights, without the archive around it."""
    return [(".pt", next(data for name, data in _saved().items() if name.endswith("data.pkl")))]


@cache
def _storages() -> bytes:
    """An archive of the storages and the description of a detector."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in _saved().items():
            if "/data/" in name:
                archive.writestr(f"archive/data/{name.split('/')[-1]}", data)
        archive.writestr("archive/extra/vggheads", json.dumps(_tiny()[0]))
    return out.getvalue()


def weights_around(content: bytes) -> bytes:
    """It with a pickle."""
    out = io.BytesIO(_storages())
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("archive/data.pkl", content)
    return out.getvalue()


@cache
def _safetensors() -> tuple[bytes, bytes]:
    """Header with its length, and weights, of which no flipped bit could be noticed."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in _tiny()[1].items()})
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return data[:end], data[end:]


def model_headers() -> Files:
    """The files of a model's folder; of the weights, what precedes the numbers."""
    from ml.inference.loading import CONFIG_NAME, WEIGHTS_NAME

    config = json.dumps(_tiny()[0]).encode()
    return [(f"-{WEIGHTS_NAME}", _safetensors()[0]), (f"-{CONFIG_NAME}", config)]


def _model_folder(path: Path) -> Path:
    from ml.inference.loading import CONFIG_NAME, WEIGHTS_NAME

    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    header, numbers = _safetensors()
    config = json.dumps(_tiny()[0]).encode()
    if path.name.endswith(WEIGHTS_NAME):
        header = path.read_bytes()
    else:
        config = path.read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(header + numbers)
    (folder / CONFIG_NAME).write_bytes(config)
    return folder


@cache
def onnx_file() -> Files:
    """A graph with a detector's inputs, outputs and description."""
    from onnx import TensorProto, helper

    from ml.model.export import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUTS

    pixels = helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["batch", 3, 64, 64])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 64, 64])
        for name in ONNX_OUTPUTS
    ]
    nodes = [helper.make_node("Identity", [ONNX_INPUT], [name]) for name in ONNX_OUTPUTS]
    model = helper.make_model(
        helper.make_graph(nodes, "detector", [pixels], outputs),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(model, {METADATA_KEY: json.dumps(_tiny()[0])})
    return [(".onnx", model.SerializeToString())]
