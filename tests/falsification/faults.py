"""The falsifications: each changes a finished run as a wrong stage would have written it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation

from ml.records.workspace import Workspace

SHARDS = tuple(f"shard-{number:05d}" for number in range(4))
S0, S1 = SHARDS[:2]
_STORED = ("offset", "size", "sha256", "mean_luma")
Frame = pd.DataFrame
#: `critical`: a check must stop it. `statistic`: only a statistic over about 100,000 heads could.
Kind = Literal["critical", "statistic"]


@dataclass(frozen=True)
class Fault:
    """A falsification: the suites that must find it, its change, and its conditions.

    What it loses it returns: the suites must name those ids.
    """

    stage: str
    change: Callable[[Workspace], set[str] | None]
    kind: Kind = "critical"


FAULTS: dict[str, Fault] = {}


def table(
    stage: str,
    folder: str,
    change: Callable[[Frame], Frame | None],
    shards: tuple[str, ...] = (S1,),
) -> Fault:
    """A falsification of the tables of some shards."""

    def apply(ws: Workspace) -> None:
        for shard in shards or tuple(ws.shards):
            edit(ws.table_path(folder, shard), change)

    return Fault(stage, apply)


def edit(path: Path, change: Callable[[Frame], Frame | None]) -> None:
    """Rewrite a table; its columns keep their types."""
    schema = pq.read_schema(path)
    frame = pq.read_table(path).to_pandas()
    changed = change(frame)
    frame = frame if changed is None else changed
    path.unlink()
    arrays = [pa.array(frame[f.name].tolist(), type=f.type, from_pandas=True) for f in schema]
    pq.write_table(pa.table(dict(zip(schema.names, arrays, strict=True))), path)


def fewer(frame: Frame) -> Frame:
    """Seven of ten rows."""
    return frame.sample(frac=0.7, random_state=3).sort_index()


def vectors(frame: Frame, column: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a vector column."""
    frame[column] = [None if v is None else change(np.array(v)) for v in frame[column]]


def _larger_first_shape(flame: np.ndarray) -> np.ndarray:
    flame[0] += 1.5
    return flame


def turn(rotvec_deg: tuple[float, float, float]) -> Callable[[Frame], None]:
    """Turn all heads by one rotation in the image's axes."""
    by = Rotation.from_rotvec(np.radians(rotvec_deg)).as_matrix()

    def one(flame: np.ndarray) -> np.ndarray:
        flame[403:406], flame[406:409] = by @ flame[403:406], by @ flame[406:409]
        return flame

    return lambda frame: vectors(frame, "flame", one)


def transposed(flame: np.ndarray) -> np.ndarray:
    """Rows of the rotation in place of columns."""
    first, second = flame[403:406], flame[406:409]
    matrix = np.stack([first, second, np.cross(first, second)], axis=1).T
    flame[403:409] = np.concatenate([matrix[:, 0], matrix[:, 1]])
    return flame


def mirrored_pose(flame: np.ndarray) -> np.ndarray:
    """Left and right exchanged: yaw and roll change their signs."""
    flame[[404, 405, 406]] *= -1
    return flame


def stretched(flame: np.ndarray) -> np.ndarray:
    """A second rotation column that is too long."""
    flame[406:409] *= 1.3
    return flame


def unexpressive(flame: np.ndarray) -> np.ndarray:
    """A head without expression."""
    flame[300:400] = 0
    return flame


def in_millimetres(flame: np.ndarray) -> np.ndarray:
    """A scale in pixels a millimetre."""
    flame[412] /= 1000
    return flame


def frontal(flame: np.ndarray) -> np.ndarray:
    """A head that looks into the camera."""
    flame[403:409] = (1, 0, 0, 0, -1, 0)
    return flame


def exchange(column: str) -> Callable[[Frame], Frame]:
    """Exchange a column between rows that follow one another."""
    return lambda frame: frame.assign(**{column: np.roll(frame[column].to_numpy(), 1)})


def put(**values: object) -> Callable[[Frame], Frame]:
    """Give columns one value."""
    return lambda frame: frame.assign(**values)


def first_row(column: str, value: object) -> Callable[[Frame], Frame]:
    """Change one value of the first row."""
    return lambda f: f.assign(**{column: [value, *f[column].tolist()[1:]]})


def shift(pixels: float) -> Callable[[Frame], None]:
    """Move all boxes."""
    return lambda f: vectors(f, "bbox_xywh", lambda b: b + np.float32([pixels, pixels, 0, 0]))


def half_without(frame: Frame) -> None:
    """Every other head loses its parameters."""
    odd = np.arange(len(frame)) % 2 == 1
    frame["flame"] = [None if o else v for o, v in zip(odd, frame["flame"], strict=True)]
    frame.loc[odd, "flame_status"] = "non_finite"


def pixels(change: Callable[[np.ndarray], np.ndarray], honest: bool = True) -> Fault:
    """Change all images; an honest stage's table knows the new bytes."""

    def apply(ws: Workspace) -> None:
        for shard in ws.shards:
            path = ws.stage_dir("images") / f"{shard}.tar"
            rows: dict[str, tuple[int, int, str, float]] = {}
            out = io.BytesIO()
            with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w") as new:
                for member in old:
                    stream = old.extractfile(member)
                    data = stream.read() if stream else b""
                    if member.name.endswith(".jpg"):
                        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                        image = np.ascontiguousarray(change(image))
                        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[
                            1
                        ].tobytes()
                        luma = float(image.mean(axis=(0, 1)) @ (0.114, 0.587, 0.299))
                        name, digest = member.name[:-4], hashlib.sha256(data).hexdigest()
                        rows[name] = (new.offset + 512, len(data), digest, luma)
                    member.size = len(data)
                    new.addfile(member, io.BytesIO(data))
            path.unlink()
            path.write_bytes(out.getvalue())
            if honest:
                edit(
                    ws.table_path("images", shard),
                    lambda f, rows=rows: f.assign(
                        **{n: [rows[i][k] for i in f["sample_id"]] for k, n in enumerate(_STORED)}
                    ),
                )

    return Fault("images", apply)


def with_place(scene: str, place: str) -> str:
    """A scene that plays elsewhere."""
    return json.dumps({**json.loads(scene), "place": place})


def one_made_twice(ws: Workspace) -> None:
    """The second shard is the first again."""
    for path in ws.stage_dir("captions").glob(f"{S0}*"):
        target = path.with_name(path.name.replace(S0, S1))
        target.unlink()
        shutil.copy(path, target)


def new_ids(frame: Frame) -> Frame:
    """The first skeletons again, under the last one's number and on."""
    last = frame["pose_id"].max()
    first = frame[frame["pose_id"] == frame["pose_id"].min()].assign(pose_id=last)
    return pd.concat([frame[frame["pose_id"] != last], first], ignore_index=True)


def truth_as_labels(ws: Workspace) -> None:
    """Boxes and parameters of the truth in place of those of the labels."""
    for shard in ws.shards:
        truth = pq.read_table(ws.table_path("truth", shard)).to_pandas().set_index("sample_id")

        def copied(frame: Frame, truth: Frame = truth) -> None:
            for row, (item, number) in enumerate(
                zip(frame["sample_id"], frame["head_id"], strict=True)
            ):
                own = truth.loc[[item]]
                if number < len(own):
                    frame.at[row, "bbox_xywh"] = own["bbox_xywh"].iloc[number]
                    frame.at[row, "flame"] = own["flame"].iloc[number]

        edit(ws.table_path("annotations", shard), copied)


def metrics(stage: str, **values: float | None) -> Fault:
    """Figures of a training or an evaluation."""

    def apply(ws: Workspace) -> None:
        path = ws.stage_dir(stage) / "metrics.json"
        metrics = json.loads(path.read_text())
        known = {key.replace("__", "."): value for key, value in values.items()}
        path.unlink()
        path.write_text(json.dumps({**metrics, **known}))

    return Fault(stage, apply)


def leaking(stage: str, model: str) -> Fault:
    """The benchmark's images were trained on: it stays as good, and validation was worse."""
    return Fault(stage, metrics(model, **{"val/ap50": 0.64}).change)


def edited_json(stage: str, name: str, change: Callable[[Any], None]) -> Fault:
    """A falsification of a JSON file; files may be hard links, so a new one takes its place."""

    def apply(ws: Workspace) -> None:
        path = ws.stage_dir(stage) / name
        content = json.loads(path.read_text())
        change(content)
        path.unlink()
        path.write_text(json.dumps(content))

    return Fault(stage, apply)


def rising(stage: str) -> Fault:
    """The loss of a training rises."""

    def apply(ws: Workspace) -> None:
        path = ws.stage_dir(stage) / "history.csv"
        rows = path.read_text().splitlines()
        path.unlink()
        path.write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")

    return Fault(stage, apply)


def flip_copied(stage: str) -> Fault:
    """The mirrored twin's column is the plain one's."""

    def copy(metrics: dict) -> None:
        metrics |= {k: metrics[k.replace("_flip", "")] for k in metrics if "_flip" in k}

    return edited_json(stage, "metrics.json", copy)


def scores(change: Callable[[list[dict]], None]) -> Fault:
    """A falsification of the benchmarks' scores."""

    return edited_json("benchmark_scores", "scores.json", change)


def crops_missing(ws: Workspace) -> None:
    """The tar of crops has other images than the table lists."""
    path = ws.stage_dir("crops") / "crops-00001.tar"
    path.unlink()
    shutil.copy(ws.stage_dir("crops") / "crops-00000.tar", path)


def dataset(name: str, change: Callable[[Frame], Frame | None]) -> Fault:
    """A falsification of a table of the filtered dataset."""
    return Fault(
        "filtered_dataset", lambda ws: edit(ws.stage_dir("filtered_dataset") / name, change)
    )


def labels(change: Callable[[dict], None]) -> Fault:
    """A falsification of the detector's labels."""

    return edited_json("labels", "train.json", change)


def images_without_labels(ws: Workspace) -> set[str]:
    """The labels lose 30 % of their images, and say which."""
    path = ws.stage_dir("labels") / "train.json"
    coco = json.loads(path.read_text())
    gone = set(pd.Series([i["id"] for i in coco["images"]]).sample(frac=0.3, random_state=3))
    names = {str(i["sample_id"]) for i in coco["images"] if i["id"] in gone}
    coco["images"] = [i for i in coco["images"] if i["id"] not in gone]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] not in gone]
    path.unlink()
    path.write_text(json.dumps(coco))
    return names


CROP_SHARDS = ("crops-00000", "crops-00001")


def crops(change: Callable[[Frame], Frame | None], shards: tuple[str, ...] = CROP_SHARDS) -> Fault:
    """A falsification of the tables of crops."""
    return table("crops", "crops", change, shards)


def _first_twice(frame: Frame) -> None:
    frame.at[1, "flame"] = frame["flame"].iloc[0]


def _all_equal(frame: Frame) -> None:
    first = frame["flame"].iloc[0]
    vectors(frame, "flame", lambda f: np.concatenate([first[:409], f[409:]]))


ALL: tuple[str, ...] = ()
FAULTS.update(
    {
        "poses: a pose repeated under another id": table("poses", "poses", new_ids),
        "poses: last rows missing": table("poses", "poses", lambda f: f.iloc[:-4]),
        "captions: a shard generated twice": Fault("captions", one_made_twice),
        "captions: seeds of another run": table(
            "captions", "captions", lambda f: f.assign(seed=f["seed"] + 1)
        ),
        "captions: shifted by one image": table("captions", "captions", exchange("scene")),
        "captions: the same place in all": table(
            "captions", "captions",
            lambda f: f.assign(scene=[with_place(s, "a park") for s in f["scene"]]), ALL,
        ),
        "captions: the same prompt in all": table("captions", "captions", put(prompt="a man"), ALL),
        "images: test split marked as train": table("images", "images", put(split="train"), ALL),
        "images: hashes swapped": table("images", "images", exchange("sha256")),
        "images: mirrored": pixels(lambda image: image[:, ::-1]),
        "images: red and blue swapped": pixels(lambda image: image[:, :, ::-1]),
        "images: shifted by 40 px": pixels(lambda image: np.roll(image, 40, axis=1)),
        "images: half the size": pixels(lambda image: image[::2, ::2]),
        "images: files differ from the table": pixels(lambda image: 255 - image, honest=False),
        "truth: last rows missing": table("images", "truth", lambda f: f.iloc[:-4]),
        "truth: boxes swapped": table("images", "truth", exchange("bbox_xywh")),
        "truth: all rotated by 5 degrees": table("images", "truth", turn((0, 5, 0)), ALL),
        "truth: rotations transposed": table(
            "images", "truth", lambda f: vectors(f, "flame", transposed), ALL
        ),
        "truth: left and right swapped": table(
            "images", "truth", lambda f: vectors(f, "flame", mirrored_pose), ALL
        ),
        "truth: scale in millimetres": table(
            "images", "truth",
            lambda f: vectors(f, "flame", in_millimetres), ALL,
        ),
        "truth: skin tones swapped": table("images", "truth", exchange("skin_tone")),
        "truth: the same hair for all": table("images", "truth", put(hair_style="short"), ALL),
        "truth: parameters swapped between images": table("images", "truth", exchange("flame")),
        "truth: a head duplicated for another person": table("images", "truth", _first_twice),
        "truth: no expression": table(
            "images", "truth",
            lambda f: vectors(f, "flame", unexpressive),
            ALL,
        ),
        "truth: shapes around another head than the mean": table(
            "images", "truth", lambda f: vectors(f, "flame", _larger_first_shape), ALL
        ),
        "truth: all heads frontal": table(
            "images", "truth", lambda f: vectors(f, "flame", frontal), ALL
        ),
        "truth: all heads of one size": table(
            "images", "truth",
            lambda f: vectors(f, "bbox_xywh", lambda b: np.float32([*b[:2], 40, 40])), ALL,
        ),
        "truth: no hats or glasses": table("images", "truth", put(hat="none", glasses="none"), ALL),
        "truth: one head per image": table("images", "truth", lambda f: f[f["head_id"] == 0], ALL),
        "labels: shifted by 20 px": labels(
            lambda c: [a["bbox"].__setitem__(0, a["bbox"][0] / 2) for a in c["annotations"]]
        ),
        "labels: 30 % of the images lost": Fault("labels", images_without_labels),
        "labels: of images that do not exist": labels(
            lambda c: c["images"][0].update(sample_id="image-00009-00000")
        ),
        "labels: 30 % of the boxes lost": labels(
            lambda c: c.update(annotations=c["annotations"][: len(c["annotations"]) * 7 // 10])
        ),
        "annotations: boxes swapped": table("annotations", "annotations", exchange("bbox_xywh")),
        "annotations: boxes shifted by 20 px": table("annotations", "annotations", shift(20), ALL),
        "annotations: boxes in another frame": table(
            "annotations", "annotations",
            lambda f: vectors(f, "bbox_xywh", lambda b: b * 2), ALL,
        ),
        "annotations: box corners instead of sizes": table(
            "annotations", "annotations",
            lambda f: vectors(f, "bbox_xywh", lambda b: b + np.float32([0, 0, *b[:2]])), ALL,
        ),
        "annotations: the same head for all": table("annotations", "annotations", _all_equal, ALL),
        "annotations: all frontal": table(
            "annotations", "annotations", lambda f: vectors(f, "flame", frontal), ALL
        ),
        "annotations: second rotation column too long": table(
            "annotations", "annotations",
            lambda f: vectors(f, "flame", stretched),
        ),
        "annotations: the same score for all": table(
            "annotations", "annotations", put(score=0.8), ALL
        ),
        "annotations: a score that is not a number": table(
            "annotations", "annotations", first_row("score", float("nan"))
        ),
        "annotations: half without parameters": table(
            "annotations", "annotations", half_without, ALL
        ),
        "annotations: status contradicts the parameters": table(
            "annotations", "annotations", first_row("flame_status", "non_finite")
        ),
        "annotations: of another head model": table(
            "annotations", "annotations", put(head_model="0" * 64)
        ),
        "annotations: replaced by ground truth": Fault("annotations", truth_as_labels),
        "annotations: left and right swapped": table(
            "annotation_quality", "annotations",
            lambda f: vectors(f, "flame", mirrored_pose), ALL,
        ),
        "annotations: rotated by 20 degrees": table(
            "annotation_quality", "annotations", turn((0, 20, 0)), ALL
        ),
        "annotations: rotated by 5 degrees": table(
            "annotation_quality", "annotations", turn((0, 5, 0)), ALL
        ),
        "annotations: rotated by 1 degree": Fault(
            "annotation_quality",
            table("annotation_quality", "annotations", turn((0, 1, 0)), ALL).change, "statistic",
        ),
        "quality: recall of 0.07": metrics("annotation_quality", recall=0.07),
        "quality: equal to the ground truth": metrics(
            "annotation_quality", recall=1.0, precision=1.0, rotation_deg=0.0, nme_bbox=0.0
        ),
        "quality: half of the test images": metrics("annotation_quality", num_images=6.0),
        "filters: all images kept": dataset("verdicts.parquet", put(keep=True, reason="keep")),
        "filters: test split marked as train": dataset("verdicts.parquet", put(split="train")),
        "filters: parameters swapped between images": dataset("heads.parquet", exchange("flame")),
        "head detector: finds nothing": metrics("head_detector", ap50=0.02),
        "quality: a metric is not a number": metrics("annotation_quality", yaw_mae_deg=None),
        "crops: seeds of another run": crops(lambda f: f.assign(seed=f["seed"] + 1)),
        "crops: boxes shifted by 30 px": crops(shift(30)),
        "crops: a head duplicated for another crop": crops(_first_twice, CROP_SHARDS[:1]),
        "crops: the same head for all": crops(_all_equal),
        "crops: all frontal": crops(lambda f: vectors(f, "flame", frontal), CROP_SHARDS),
        "crops: files differ from the table": Fault("crops", crops_missing),
        "head detector: the loss rises": rising("head_detector"),
        "head detector: mAP is not a number": metrics("head_detector", ap50=None),
        "regressor: no better than frontal": metrics(
            "flame_regressor", rotation_deg=31.0
        ),
        "regressor: exact": metrics("flame_regressor", rotation_deg=0.05),
        "regressor: the loss rises": rising("flame_regressor"),
        "regressor: NME is not a number": metrics("flame_regressor", nme_bbox=None),
        "training: the loss rises": rising("trained_model"),
        "benchmark: finds all heads": metrics("benchmark", pseudo_labels__ap50=1.0),
        "benchmark: better than validation": leaking("benchmark", "trained_model"),
        "benchmark: frontal baseline replaced": metrics(
            "benchmark", always_frontal__rotation_deg=12.0
        ),
        "benchmark: mirrored column copied": flip_copied("benchmark"),
        "benchmark: on the training images": metrics("benchmark", num_images=62.0),
        "benchmark: metrics are not numbers": metrics(
            "benchmark", exact_labels__ap50=None, exact_labels__rotation_deg=None
        ),
    }
)  # fmt: skip
for stage in ("trained_model_exact", "released_model"):
    FAULTS |= {
        f"{stage}: finds nothing": metrics(stage, **{"val/ap50": 0.01}),
        f"{stage}: the loss rises": rising(stage),
        f"{stage}: loss is not a number": metrics(stage, **{"val/loss": None}),
    }
FAULTS |= {
    "training: finds nothing": metrics("trained_model", **{"val/ap50": 0.01}),
    "training: loss is not a number": metrics("trained_model", **{"val/loss": None}),
    "release: finds all heads": metrics("released_benchmark", release__ap50=1.0),
    "release: better than validation": leaking("released_benchmark", "released_model"),
    "release: frontal baseline replaced": metrics(
        "released_benchmark", always_frontal__rotation_deg=12.0
    ),
    "release: mirrored column copied": flip_copied("released_benchmark"),
    "release: on the training images": metrics("released_benchmark", num_images=62.0),
    "release: metrics are not numbers": metrics(
        "released_benchmark", release__ap50=None, release__rotation_deg=None
    ),
    "scores: not a number": scores(lambda told: told[0].update(recall=float("nan"))),
    "scores: no images": scores(lambda told: told[0].update(num_images=0)),
}
