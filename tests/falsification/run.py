"""A run that learned, made of a finished smoke run: exact heads with the errors of a teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.spatial.transform import Rotation

from ml.quality.bounds import FOLDER, read_bounds
from ml.records.atomic import write_json
from ml.records.tables import (
    ANNOTATED_IMAGES,
    DATASET_HEADS,
    EXCLUSIONS,
    HEADS,
    IMAGES,
    TRUTH,
    VERDICTS,
    empty_table,
    read_stage,
    read_table,
    write_samples,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages.annotation_quality import AnnotationQualityConfig
from ml.stages.annotation_quality import run as measure_labels
from tests.rehearsal import ROOT

SEED, NUM_SHARDS, SHARD_SIZE = 20240718, 4, 24
PROFILE = "learned"
OF_WORLD = ("yaw", "pitch", "roll", "from", "head")
#: Figures of a demo that learned, as README.md tells them.
DETECTOR = {"ap50": 0.86, "recall_max": 0.93, "precision": 0.85, "recall": 0.8}
REGRESSOR = {
    "rotation_deg": 9.3, "rotation_frontal_deg": 32.6, "nme_bbox": 4.5
}  # fmt: skip
TRAINED = {"val/ap50": 0.9, "val/loss": 5.1, "train/loss": 4.9}
BENCHMARK = {
    "pseudo_labels": (0.919, 16.1, 8.9), "pseudo_labels_flip": (0.939, 15.2, 8.0),
    "exact_labels": (0.941, 13.5, 7.4), "exact_labels_flip": (0.946, 12.8, 6.9),
    "mean_head": (0.919, 16.1, 10.4), "always_frontal": (0.919, 34.7, 20.8),
}  # fmt: skip
LOSSES = (20.0, 9.0, 6.0, 4.9)


def workspace(root: Path) -> Workspace:
    """The workspace of a copied run."""
    return Workspace(root, SEED, NUM_SHARDS, SHARD_SIZE)


def make_run(project: Path, target: Path) -> Workspace:
    """Copy a finished smoke run, and let it have learned."""
    shutil.copytree(project / "data", target / "data", ignore=_not_judged)
    shutil.copytree(ROOT / "conf", target / "conf")
    _write_bounds(target)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["run"]["profile"] = PROFILE
    (target / "params.yaml").write_text(yaml.safe_dump(params))
    ws = workspace(target)
    rng = np.random.default_rng(7)
    for shard in ws.shards:
        _label(ws, shard, rng)
    _judge(ws, rng)
    measure_labels(ws, AnnotationQualityConfig(resamples=20))
    _metrics(ws)
    return ws


def _not_judged(folder: str, names: list[str]) -> set[str]:
    """Unfinished work, and what a stage shows of itself; a stage is called images, too."""
    inside = Path(folder).parent.name == "data"
    return {name for name in names if name == ".work" or (inside and name == "images")}


def _write_bounds(target: Path) -> None:
    """Bounds of a smoke run that learned: its data are a smoke run's, the rest is the demo's."""
    small, learned = (read_bounds(target, name) for name in ("smoke", "demo"))
    of_data = {name: small.bounds[name] for name in ("drop_rates", "captions", "images", "crops")}
    groups = {**learned.bounds, **of_data}
    # This teacher finds heads of all views and sizes equally well, and its images are smoke's.
    turned = {k: v for k, v in small.bounds["images"].items() if k.split("_")[0] in OF_WORLD}
    splits = {k: v for k, v in small.bounds["filtered_dataset"].items() if k.startswith("split")}
    groups["annotations"] = {**groups["annotations"], **turned}
    groups["filtered_dataset"] = {
        **groups["filtered_dataset"], **turned, **splits, "removed_cut_count": (0.0, 0.1)
    }  # fmt: skip
    # It errs by degrees, and by none on average.
    groups["annotation_quality"] = {**groups["annotation_quality"], "turn_deg": (0.0, 4.0)}
    bounds = learned.model_copy(update={"min_rows": small.min_rows, "bounds": groups})
    path = target / FOLDER / f"{PROFILE}.yaml"
    path.write_text(yaml.safe_dump(bounds.model_dump(mode="json")))


def _label(ws: Workspace, shard: str, rng: np.random.Generator) -> None:
    """Pseudo-labels of a teacher that misses a few heads, errs by degrees and invents a few."""
    images = read_table(ws.table_path("images", shard), IMAGES)
    truth = read_table(ws.table_path("truth", shard), TRUTH)
    model = truth["head_model"].iloc[0]
    rows, listed = [], []
    for image in images.to_dict("records"):
        true = truth[(truth["sample_id"] == image["sample_id"]) & (truth["visible"] > 0.3)]
        found = [
            _seen(np.asarray(box), np.asarray(flame), image, rng)
            for box, flame in zip(true["bbox_xywh"], true["flame"], strict=True)
            if rng.random() > 0.1
        ]
        if found and rng.random() < 0.12:
            found.append(_seen(rng.uniform(10, 40, 4), found[0][1], image, rng))
        scores = sorted(rng.uniform(0.45, 0.97, len(found)), reverse=True)
        for number, ((box, flame), score) in enumerate(zip(found, scores, strict=True)):
            rows.append(
                {
                    "sample_id": image["sample_id"], "head_id": number, "split": image["split"],
                    "bbox_xywh": box, "score": score, "flame": flame, "flame_status": "ok",
                    "head_model": model, "teacher": "teacher", "threshold": 0.38,
                    "source": "pseudo",
                }
            )  # fmt: skip
        listed.append({k: image[k] for k in ("sample_id", "split")} | {"num_heads": len(found)})
    write_table(ws.table_path("annotations", shard), pd.DataFrame(rows), HEADS)
    write_table(
        ws.table_path("annotations", f"{shard}.images"), pd.DataFrame(listed), ANNOTATED_IMAGES
    )
    write_table(
        ws.table_path("annotations", f"{shard}.exclusions"), empty_table(EXCLUSIONS), EXCLUSIONS
    )
    counts = {"num_in": len(images), "num_out": len(images), "num_excluded": 0}
    path = ws.stage_dir("annotations") / f"{shard}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **counts}))


def _seen(box, flame, image, rng):  # type: ignore[no-untyped-def]
    """A head as the teacher sees it: box inside the image, parameters that fit it."""
    box = box + rng.normal(0, 0.025, 4) * box[[2, 3, 2, 3]]
    low = np.clip(box[:2], 0, (image["width"] - 12, image["height"] - 12))
    high = np.clip(box[:2] + box[2:], low + 11, (image["width"], image["height"]))
    box = np.concatenate([low, high - low]).astype(np.float32)
    flame = flame.copy()
    flame[:300] = 0.15 * flame[:300] + rng.normal(0, 0.07, 300)
    flame[300:403] = 0.5 * flame[300:403] + rng.normal(0, 0.1, 103)
    six = flame[403:409].reshape(2, 3)
    matrix = np.stack([*six, np.cross(*six)], axis=1)
    turned = Rotation.from_rotvec(rng.normal(0, np.radians(9), 3)).as_matrix() @ matrix
    flame[403:409] = np.concatenate([turned[:, 0], turned[:, 1]])
    flame[409:411] = box[:2] + box[2:] / 2 + rng.normal(0, 0.02, 2) * box[2:]
    flame[412] = box[3] / 0.28 * rng.normal(1, 0.04)
    return box, flame.astype(np.float32)


def _judge(ws: Workspace, rng: np.random.Generator) -> None:
    """Verdicts that follow from the labels, and the dataset that follows from them."""
    images, heads = read_stage(ws, "images", IMAGES), read_stage(ws, "annotations", HEADS)
    counts = heads.groupby("sample_id").size()
    rows = []
    for item, split, shard in images[["sample_id", "split", "shard"]].to_numpy().tolist():
        number = int(counts.get(item, 0))
        mirrored = number + (1 if number and rng.random() < 0.08 else 0)
        reason = "no_head" if not number else "flip_count" if mirrored != number else "keep"
        rows.append(
            {
                "sample_id": item, "split": split, "shard": shard, "keep": reason == "keep",
                "reason": reason, "detail": f"{number} heads", "num_heads": number,
                "num_heads_flipped": mirrored, "num_heads_halves": -1, "num_faces_missed": -1,
                "stability": rng.uniform(0.75, 0.97) if number else None,
            }
        )  # fmt: skip
    verdicts = pd.DataFrame(rows).astype({"stability": "float64"})
    removed = verdicts[~verdicts["keep"]]
    kept = verdicts[verdicts["keep"]]
    folder = ws.stage_dir("filtered_dataset")
    write_table(folder / "verdicts.parquet", verdicts, VERDICTS)
    dataset = heads.merge(kept[["sample_id", "shard"]], on="sample_id")
    write_table(folder / "heads.parquet", dataset, DATASET_HEADS)
    excluded = removed[["sample_id", "reason", "detail"]].assign(stage="filtered_dataset")
    write_table(folder / "all.exclusions.parquet", excluded, EXCLUSIONS)


def _metrics(ws: Workspace) -> None:
    """Figures of trainings that went well."""
    write_json(ws.stage_dir("head_detector") / "metrics.json", DETECTOR)
    write_json(ws.stage_dir("flame_regressor") / "metrics.json", REGRESSOR)
    trained = ("trained_model", "trained_model_exact", "released_model")
    for stage in ("head_detector", "flame_regressor", *trained):
        rows = [f"{epoch},{loss},{loss * 1.05}" for epoch, loss in enumerate(LOSSES)]
        text = "\n".join(["epoch,train/loss,val/loss", *rows]) + "\n"
        (ws.stage_dir(stage) / "history.csv").write_text(text)
    for stage in trained:
        write_json(ws.stage_dir(stage) / "metrics.json", TRAINED)
    names = ("ap50", "rotation_deg", "nme_bbox")
    flat = {f"{t}.{n}": v for t, row in BENCHMARK.items() for n, v in zip(names, row, strict=True)}
    images = read_stage(ws, "images", IMAGES)
    number = float((images["split"] == "test").sum())
    write_json(ws.stage_dir("benchmark") / "metrics.json", {"num_images": number, **flat})
    # A release is not imported in a smoke run: the filtered dataset stands for what it would hold.
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    write_table(ws.stage_dir("released_dataset") / "verdicts.parquet", verdicts, VERDICTS)
    kept = verdicts[verdicts["keep"]]
    used = [kept.loc[kept["split"] == split, "sample_id"].tolist() for split in ("train", "val")]
    for stage in trained:
        write_samples(ws.stage_dir(stage), *used)
    number = float(((verdicts["split"] == "test") & verdicts["keep"]).sum())
    released = {
        f"release{name.removeprefix('pseudo_labels')}": value
        for name, value in flat.items()
        if name.startswith("pseudo_labels")
    } | {name: value for name, value in flat.items() if name.startswith(("mean_", "always_"))}
    write_json(
        ws.stage_dir("released_benchmark") / "metrics.json", {"num_images": number, **released}
    )
