"""Rehearse the research profile from nothing: tiny models, rendered source images, every stage.

    python -m tests.research_rehearsal build/research

Makes a project of its own in the given folder (a copy of this checkout's code), and builds models
of random weights and a folder of source images there. Then both doors: `dvc repro` up to the
images; a label file as a labelling tool hands it back; one Dagster run up to the filtered
dataset, after which `dvc status` must be clean. Ends with the lineage of an image. Again is cheap:
what is up to date is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ml.filtering.identity import IdentityConfig, build_index, load_face_reader
from ml.imaging.io import decode_image
from ml.records.exclusions import Exclusions
from ml.records.tables import IMAGES, POSES, VERDICTS, read_table
from tests.rehearsal import copy_project, run, say
from tests.tiny_models import TinyModels
from tests.tiny_models.dad import build_dad
from tests.tiny_models.faces import build_embedder, build_yunet

PROFILE = "research_tiny"
MODELS = (
    "person-detector", "vitpose", "blip-vqa", "gliner", "sdxl", "t2i-adapter", "safety-checker",
    "vit-classifier",
)  # fmt: skip
NUM_SOURCES = 24
MATERIALIZE = """
import sys
from dagster_project.env import prepare
from dagster_project.graph import ancestors, descendants
from dagster_project.launch import launch, open_instance
from dagster_project.stages import project

pipeline = project()
stale = descendants(pipeline.graph, pipeline.stale())
wanted = ancestors(pipeline.graph, ["filtered_dataset"]) & stale
stages = [stage for stage in pipeline.graph if stage in wanted]
with open_instance(prepare(pipeline.root)) as instance:
    sys.exit(0 if not stages or launch(pipeline, instance, stages) else 1)
"""
"""One Dagster run of all that the filtered dataset needs and that is not up to date."""


def main(arguments: list[str] | None = None) -> int:
    """Run the rehearsal; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder.resolve()
    started = time.monotonic()
    copy_project(folder)
    say("models of random weights")
    build_models(folder / "models")
    say("source images")
    build_sources(folder / "sources" / "images")
    run(folder, "-m", "dagster_project.cli", "profile", PROFILE)
    say("poses, captions, images")
    run(folder, "-m", "dvc", "repro", "images")
    say("labels come back from the labelling tool")
    write_labels(folder)
    say("detector, annotations, filters")
    run(folder, "-c", MATERIALIZE)
    run(folder, "-m", "dvc", "status", "--quiet", "--with-deps", "filtered_dataset")
    sample = example(folder)
    say(f"lineage of {sample}")
    run(folder, "-m", "dagster_project.cli", "lineage", sample)
    say(f"done in {time.monotonic() - started:.0f} s; the project is {folder}")
    return 0


def build_models(folder: Path) -> None:
    """Build what is not there."""
    tiny = TinyModels(folder)
    for name in MODELS:
        tiny.path(name)
    if not (folder / "identity-index.npz").exists():
        build_dad(folder / "dad.trcd")
        build_yunet(folder / "yunet.onnx")
        build_embedder(folder / "sface.onnx", 128)
        build_identity_index(folder)


def build_identity_index(folder: Path) -> None:
    """The index of one face that must not appear."""
    from ml.imaging.io import encode_png

    faces = folder / "faces"
    faces.mkdir(exist_ok=True)
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:96, 32:96] = 255
    (faces / "0.png").write_bytes(encode_png(image))
    config = IdentityConfig(
        index="identity-index.npz",
        source_asset="own-images",
        detector="yunet",
        detector_model={"path": "yunet.onnx", "asset": "random-weights"},
        embedder="sface",
        embedder_model={"path": "sface.onnx", "asset": "random-weights"},
        input_size=64,
    )
    reader = load_face_reader(config, folder)
    index, _ = build_index(faces, reader, Exclusions("identity"))
    index.save(folder / "identity-index.npz")


def build_sources(folder: Path) -> None:
    """Images of people from our renderer, and three that must be refused."""
    from ml.captions.config import CaptionsConfig
    from ml.flame.procedural import build_procedural_head
    from ml.generation.config import ImagesConfig
    from ml.imaging.io import encode_jpeg
    from ml.poses.config import PosesConfig
    from ml.records.shards import ShardReader
    from ml.records.workspace import Workspace
    from ml.stages.captions import run_shard as caption
    from ml.stages.images import run_shard as render
    from ml.stages.poses import run_shard as pose

    if folder.exists():
        return
    unfinished = folder.with_name(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    ws = Workspace(unfinished / "renders", seed=8, num_shards=1, shard_size=NUM_SOURCES - 3)
    build_procedural_head(0).save(ws.stage_dir("head_model") / "head_model.npz")
    (shard,) = ws.shards
    pose(ws, PosesConfig(width=128, height=128), shard)
    caption(ws, CaptionsConfig(name_probability=0.0), shard)
    render(ws, ImagesConfig(), shard)
    unpacked = unfinished / "images"
    unpacked.mkdir()
    with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
        for number, key in enumerate(reader.keys()):
            (unpacked / f"{number:05d}.jpg").write_bytes(reader.read(key))
    whole = decode_image(unpacked / "00000.jpg")
    (unpacked / "90000.jpg").write_bytes(encode_jpeg(whole[:40]))
    (unpacked / "90001.jpg").write_bytes(b"no image")
    shutil.copy(unpacked / "00001.jpg", unpacked / "90002.jpg")
    (unpacked / "90002.json").write_text(json.dumps({"NSFW": "UNSURE"}))
    unpacked.rename(folder)
    shutil.rmtree(unfinished)


def write_labels(folder: Path) -> None:
    """What an annotator would hand back: a box around the face of every skeleton that has one."""
    shards = sorted((folder / "data" / "images").glob("*.tar"))
    names = [path.stem for path in shards]
    images = pd.concat(
        [read_table(folder / "data" / "images" / f"{name}.parquet", IMAGES) for name in names]
    )
    poses = pd.concat(
        [read_table(folder / "data" / "poses" / f"{name}.parquet", POSES) for name in names]
    )
    entries, boxes = [], []
    rows = images[images["split"].isin(["train", "val"])].to_dict("records")
    for number, row in enumerate(rows, start=1):
        entries.append(
            {
                "id": number,
                "file_name": f"{row['sample_id']}.jpg",
                "width": int(row["width"]),
                "height": int(row["height"]),
            }
        )
        for keypoints in poses.loc[poses["pose_id"] == row["pose_id"], "keypoints"]:
            box = _head_box(np.reshape(keypoints, (17, 3)), row["width"], row["height"])
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    text = json.dumps(
        {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "head"}]}
    )
    path = folder / "labels" / "heads.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    params = folder / "params.yaml"
    digest = hashlib.sha256(text.encode()).hexdigest()
    text = params.read_text()
    params.write_text(text.replace("\nlabels:\n", f"\nlabels:\n  file_sha256: {digest}\n"))


def _head_box(keypoints: np.ndarray, width: int, height: int) -> list[float]:
    """Left, top, width, height around nose, eyes and ears, inside the image."""
    face = keypoints[:5, :2]
    low = np.clip(face.min(axis=0) - 8, 0, [width - 17, height - 17])
    high = np.clip(face.max(axis=0) + 8, low + 16, [width, height])
    return [float(round(v, 2)) for v in (*low, *(high - low))]


def example(folder: Path) -> str:
    """An image that the filters kept, else one that they removed."""
    verdicts = read_table(folder / "data" / "filtered_dataset" / "verdicts.parquet", VERDICTS)
    ordered = verdicts.sort_values("keep", ascending=False, kind="stable")
    kept = int(verdicts["keep"].sum())
    say(f"{kept} of {len(verdicts)} images kept")
    return str(ordered["sample_id"].iloc[0])


if __name__ == "__main__":
    sys.exit(main())
