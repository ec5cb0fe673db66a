"""Rehearse the research profile from nothing: tiny models, rendered source images, every stage.

    python -m tests.research_rehearsal build/research

Makes a project of its own in the given folder (a copy of this checkout's code), and builds models
of random weights and a folder of source images there. Then both doors: `dvc repro` up to the
images; the first labels, exported from the images alone and imported back; an identity index with
its threshold; one Dagster run up to the benchmark's report, after which `dvc status` must be clean.
Ends with the lineage of an image. Again is cheap: what is up to date is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

from ml.imaging.io import decode_image
from ml.records.tables import VERDICTS, read_table
from tests.rehearsal import copy_project, run, say
from tests.tiny_models import TinyModels
from tests.tiny_models.dad import build_dad
from tests.tiny_models.faces import build_embedder, build_yunet, draw_face

PROFILE = "research_tiny"
CLI = ("-m", "dagster_project.cli")
MODELS = (
    "person-detector", "vitpose", "blip-vqa", "gliner", "sdxl", "t2i-adapter", "safety-checker",
    "vit-classifier",
)  # fmt: skip
NUM_SOURCES = 24
NUM_KNOWN = 12
"""Persons who must not appear, with two images each."""


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
    run(folder, *CLI, "profile", PROFILE, "--force")
    say("poses, captions, images")
    run(folder, "-m", "dvc", "repro", "images")
    say("the first labels: exported from the images alone, imported back")
    label(folder)
    say("identity index, with the threshold that its own faces tell")
    run(folder, *CLI, "identity-index", "models/faces", "--target", "0.15")
    say("detector, annotations, filters, training, benchmark: one Dagster run")
    run(folder, *CLI, "materialize", "benchmark", "--upstream")
    run(folder, "-m", "dvc", "status", "--quiet", "--with-deps", "benchmark")
    report = (folder / "data" / "benchmark" / "report.md").read_text()
    if "No exact ground truth" not in report:
        raise SystemExit("the benchmark does not say that it compares with pseudo-labels")
    say(report.split("\n\n")[0])
    sample = example(folder)
    say(f"lineage of {sample}")
    run(folder, *CLI, "lineage", sample)
    say(f"done in {time.monotonic() - started:.0f} s; the project is {folder}")
    return 0


def build_models(folder: Path) -> None:
    """Build what is not there."""
    tiny = TinyModels(folder)
    for name in MODELS:
        tiny.path(name)
    if not (folder / "faces").exists():
        build_dad(folder / "dad.trcd")
        build_yunet(folder / "yunet.onnx")
        build_embedder(folder / "sface.onnx", 128)
        build_known_faces(folder / "faces")


def build_known_faces(folder: Path) -> None:
    """Images of the persons who must not appear, a folder for each."""
    from ml.imaging.io import encode_png

    for person in range(NUM_KNOWN):
        for number in range(2):
            path = folder / str(person) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(draw_face(person, number, number)))


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


def label(folder: Path) -> None:
    """Export a first round, confirm its boxes as an annotator in a hurry would, import it."""
    exported = folder / "labels" / "first"
    run(folder, *CLI, "label-export", str(exported), "--count", "60")
    file = exported / "cvat" / "annotations" / "instances_default.json"
    run(folder, *CLI, "label-import", str(file), "--name", "heads.json")
    digest = hashlib.sha256((folder / "labels" / "heads.json").read_bytes()).hexdigest()
    params = folder / "params.yaml"
    text = params.read_text()
    if digest not in text:
        params.write_text(text.replace("\nlabels:\n", f"\nlabels:\n  file_sha256: {digest}\n"))


def example(folder: Path) -> str:
    """An image that the filters kept, else one that they removed."""
    verdicts = read_table(folder / "data" / "filtered_dataset" / "verdicts.parquet", VERDICTS)
    ordered = verdicts.sort_values("keep", ascending=False, kind="stable")
    kept = int(verdicts["keep"].sum())
    say(f"{kept} of {len(verdicts)} images kept")
    return str(ordered["sample_id"].iloc[0])


if __name__ == "__main__":
    sys.exit(main())
