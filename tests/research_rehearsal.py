"""Rehearse the research profile from nothing: tiny models, rendered source images, every stage.

    python -m tests.research_rehearsal build/research

Makes a project of its own in the given folder (a copy of this checkout's code), and builds there
models of random weights, in the layouts and under the names in which they are published, and a tar
of source images. Then both doors: `dvc repro` up to the images; the first labels, exported from the
images alone and imported back; an identity index with its threshold; one Dagster run up to the
benchmark's report and tables, after which `dvc status` must be clean. Ends with the lineage of an
image. Again is cheap: what is up to date is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from ml.filtering.identity import IdentityIndex
from ml.flame.head_model import HeadModel
from ml.imaging.io import decode_image
from ml.records.tables import VERDICTS, read_table
from tests.rehearsal import copy_project, environment, run, say
from tests.tiny_models.dad import build_dad
from tests.tiny_models.faces import build_embedder, build_scrfd, draw_face
from tests.tiny_models.flame import build_flame, build_index_lists
from tests.tiny_models.folder import BUILDERS
from tests.tiny_models.language import ENCODER

PROFILE = "research_tiny"
CLI = ("-m", "dagster_project.cli")
MODELS = {
    "blip-vqa": "blip-vqa",
    "deberta-v3-large": ENCODER,
    "gliner-large-v2": "gliner",
    "nsfw-image-detection": "vit-classifier",
    "realvisxl-v4": "sdxl",
    "rt-detr": "person-detector",
    "safety-checker": "safety-checker",
    "t2i-adapter-openpose-sdxl": "t2i-adapter",
    "vitpose": "vitpose",
}
"""Folder in models/, where the profile research looks for it -> the tiny model of that kind."""
NUM_SOURCES = 24
NUM_KNOWN = 12
TARGET = 0.15
"""Persons who must not appear, with two images each; `TARGET`: how many strangers may match."""


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
    build_sources(folder / "sources" / "laion-face")
    run(folder, *CLI, "profile", PROFILE, "--force")
    if not (folder / "labels").exists():
        say("preflight: what cannot be there yet")
        lacks_two(folder)
    say("poses, captions, images")
    run(folder, "-m", "dvc", "repro", "images")
    say("the first labels: exported from the images alone, imported back")
    label(folder)
    say("identity index, with the threshold that its own faces tell")
    run(folder, *CLI, "identity-index", "models/faces", "--target", str(TARGET))
    say("detector, annotations, filters, training, benchmark and tables: one Dagster run")
    run(folder, *CLI, "materialize", "benchmark_scores", "--upstream")
    say("the stages of a release, which is switched off: DVC has nothing left to do")
    run(folder, *CLI, "materialize", "released_benchmark", "--upstream")
    run(folder, "-m", "dvc", "status", "--quiet")
    check(folder)
    say(f"done in {time.monotonic() - started:.0f} s; the project is {folder}")
    return 0


def lacks_two(folder: Path) -> None:
    """Expect the preflight to name what only later steps make, and nothing else."""
    status, report = answer(folder, "preflight", "--json")
    problems = [f"{p['place']}: {p['problem']}" for p in report["problems"]]
    say("\n".join(problems))
    places = [problem.partition(":")[0] for problem in problems]
    expect("places that lack something", places, ["labels.file", "filtered_dataset.identity.index"])
    expect("status of the preflight", status, 1)


def check(folder: Path) -> None:
    """Look into what was made: pages, protocol, threshold, weights, and where an image is from."""
    data = folder / "data"
    report = (data / "benchmark" / "report.md").read_text()
    say(report.split("\n\n")[0])
    expect("what the report compares with", "No exact ground truth" in report, True)
    metrics = json.loads((data / "benchmark" / "metrics.json").read_text())
    expect("ground truth in the metrics", metrics["has_ground_truth"], 0.0)
    scores = json.loads((data / "benchmark_scores" / "scores.json").read_text())
    ours = {(one["model"], one["protocol"]) for one in scores if one["origin"] == "ours"}
    expect("our scores", ("trained_model", "held-out-pseudo-labels/1") in ours, True)
    for page in ("benchmark/report.html", "benchmark_scores/tables.html"):
        expect(page, (data / page).stat().st_size > 10_000, True)
    calibration = IdentityIndex.load(folder / "models" / "celeba-index.npz").calibration
    assert calibration is not None
    expect("false matches", calibration.false_match_rate <= TARGET, True)
    expect("histograms", (folder / "models" / "celeba-index.calibration.png").is_file(), True)
    pages = [path.name for path in (folder / "labels" / "first").iterdir()]
    expect("first labels", {"cvat", "index.html", "label_studio.json"} <= set(pages), True)
    sample = example(folder)
    say(f"lineage of {sample}")
    _, lineage = answer(folder, "lineage", sample)
    say(json.dumps(lineage, indent=1))
    variants = {one["source"]: one.get("variant") for one in lineage["settings"]["models"]}
    expected = {"models/realvisxl-v4": "fp16", "models/t2i-adapter-openpose-sdxl": None}
    expect("variants of the models", variants, expected)


def answer(folder: Path, *command: str) -> tuple[int, Any]:
    """Status of a command of the project, and the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, *CLI, *command],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def expect(what: str, got: object, expected: object) -> None:
    """End the rehearsal where something is not as it must be."""
    if got != expected:
        raise SystemExit(f"{what}: expected {expected!r}, got {got!r}")


def build_models(folder: Path) -> None:
    """Build what is not there, each where the profile research looks for it."""
    for name, kind in MODELS.items():
        if not (folder / name).exists():
            BUILDERS[kind](folder / name)
    if (folder / "faces").exists():
        return
    head_model = own_head()
    build_flame(folder / "flame-2020", head_model)
    build_index_lists(folder / "flame-indices", head_model)
    build_dad(folder / "dad_3dheads.trcd")
    build_scrfd(folder / "antelopev2" / "scrfd_10g_bnkps.onnx")
    build_embedder(folder / "antelopev2" / "glintr100.onnx", 512)
    build_known_faces(folder / "faces")


@cache
def own_head() -> HeadModel:
    """The head that FLAME's files hold here and that the sources show."""
    from ml.flame.open_head import build_open_head

    return build_open_head(0)


def build_known_faces(folder: Path) -> None:
    """Images of the persons who must not appear, a folder for each."""
    from ml.imaging.io import encode_png

    for person in range(NUM_KNOWN):
        for number in range(2):
            path = folder / str(person) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(draw_face(person, number, number)))


def build_sources(folder: Path) -> None:
    """A tar of images of people from our renderer, and three that must be refused."""
    from ml.captions.config import CaptionsConfig
    from ml.generation.config import ImagesConfig
    from ml.poses.config import PosesConfig
    from ml.records.workspace import Workspace
    from ml.stages.captions import run_shard as caption
    from ml.stages.images import run_shard as render
    from ml.stages.poses import run_shard as pose

    if folder.exists():
        return
    unfinished = folder.with_name(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    ws = Workspace(unfinished / "renders", seed=8, num_shards=1, shard_size=NUM_SOURCES - 3)
    own_head().save(ws.stage_dir("head_model") / "head_model.npz")
    (shard,) = ws.shards
    pose(ws, PosesConfig(width=128, height=128), shard)
    caption(ws, CaptionsConfig(name_probability=0.0), shard)
    render(ws, ImagesConfig(), shard)
    pack_sources(ws.stage_dir("images") / f"{shard}.tar", unfinished / "00000.tar")
    folder.mkdir(parents=True)
    (unfinished / "00000.tar").rename(folder / "00000.tar")
    shutil.rmtree(unfinished)


def pack_sources(images: Path, tar: Path) -> None:
    """Write a tar as img2dataset does: an image, its caption and its JSON by one name each."""
    from ml.imaging.io import encode_jpeg
    from ml.records.shards import ShardReader

    with ShardReader(images) as reader:
        names = reader.keys()
        samples = [(reader.read(name), "UNLIKELY") for name in names]
    whole = decode_image(samples[0][0])
    samples += [(encode_jpeg(whole[:40]), "UNLIKELY"), (b"no image", "UNLIKELY")]
    samples.append((samples[1][0], "UNSURE"))
    with tarfile.open(tar, "w") as out:
        for number, (jpeg, label) in enumerate(samples):
            about = json.dumps({"key": f"{number:09d}", "NSFW": label, "caption": "people"})
            for suffix, data in (("jpg", jpeg), ("txt", b"people"), ("json", about.encode())):
                info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))


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
