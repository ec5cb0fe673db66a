"""What holds of every row of clean data: rules between a shard's tables, and between rows.

Each rule takes tables of one shard and returns findings. Frames: boxes and translations in image
px, rotations from FLAME axes to image axes.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import pandas as pd

from ml.captions.scene import NO_SCENE, Scene
from ml.imaging.io import UnreadableImage, decode_image
from ml.quality.findings import agree, findings, joined
from ml.quality.head_invariants import (
    head_names,
    vectors,
)
from ml.records.flame_layout import NUM_FLAME_PARAMETERS, ROTATION, SCALE, SHIFT_XY
from ml.records.ids import sample_seed
from ml.records.shards import DamagedSample, ShardReader

LUMA_TOLERANCE: Final = 3.0
"""What JPEG may change of an image's mean brightness, of 255."""
_KEEP: Final = "keep"


def seeds_derived(rows: pd.DataFrame, run_seed: int, stage: str, key: str) -> pd.DataFrame:
    """Return whether seeds are those that the run's seed gives: a shard of another run shows here.

    Args:
        rows: column `key` and `seed`.
        run_seed: the run's seed.
        stage: whose seeds they are.
        key: the column of ids.

    Returns:
        One finding a row.
    """
    problems = []
    for item, seed in zip(rows[key], rows["seed"], strict=True):
        expected = sample_seed(run_seed, stage, str(item))
        problems.append("" if seed == expected else f"{item}: seed {seed}, expected {expected}")
    return findings(rows[key], problems)


def captions_follow_poses(captions: pd.DataFrame, poses: pd.DataFrame) -> pd.DataFrame:
    """Return whether a caption has its pose's split and number of people, and a scene of so many.

    Args:
        captions: rows of CAPTIONS.
        poses: rows of POSES.

    Returns:
        Findings about captions.
    """
    of_pose = poses.drop_duplicates("pose_id")
    repeated = agree(captions, of_pose, ["pose_id"], ["split", "num_people"], "captions", "poses")
    problems = []
    for item, pose, text, count in captions[
        ["sample_id", "pose_id", "scene", "num_people"]
    ].itertuples(index=False, name=None):
        own = str(item).removeprefix("image-").split("-v")[0]
        number = count if text == NO_SCENE else len(Scene.from_json(text).people)
        problem = ""
        if own != str(pose).removeprefix("pose-"):
            problem = f"{item} describes {pose}"
        elif number != count:
            problem = f"{item}: the scene is of {number} people, the pose of {count}"
        problems.append(problem)
    return joined([repeated, findings(captions["sample_id"], problems)])


def images_follow_captions(images: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Return whether an image has the pose, split, number of people and seed of its caption.

    Args:
        images: rows of IMAGES.
        captions: rows of CAPTIONS.

    Returns:
        One finding an image.
    """
    columns = ["pose_id", "split", "num_people", "seed"]
    return agree(images, captions, ["sample_id"], columns, "images", "captions")


def image_files(images: pd.DataFrame, reader: ShardReader) -> pd.DataFrame:
    """Check that the shard's bytes are those of the table: hash, size, brightness.

    Args:
        images: rows of IMAGES; of other tables of images without hash and brightness, the size.
        reader: the shard.

    Returns:
        One finding an image.
    """
    problems = []
    for row in images.to_dict("records"):
        item = str(row["sample_id"])
        try:
            data = reader.read(item)
            pixels = decode_image(data)
        except (DamagedSample, UnreadableImage) as error:
            problems.append(f"{item} cannot be read: {error}")
            continue
        height, width = pixels.shape[:2]
        luma = float(pixels.mean(axis=(0, 1)) @ (0.299, 0.587, 0.114))
        problem = ""
        if row.get("sha256", digest := hashlib.sha256(data).hexdigest()) != digest:
            problem = f"{item}: the file's bytes have another sha256 than the table says"
        elif (width, height) != (row["width"], row["height"]):
            problem = (
                f"{item} has {width}x{height} px, the table says {row['width']}x{row['height']}"
            )
        elif not abs(luma - row.get("mean_luma", luma)) <= LUMA_TOLERANCE:
            problem = f"{item}: mean brightness {luma:.1f}, the table says {row['mean_luma']:.1f}"
        problems.append(problem)
    extra = sorted(set(reader.keys()) - set(images["sample_id"]))
    unlisted = findings(extra, [f"{item} is in the shard but in no table" for item in extra])
    return joined([findings(images["sample_id"], problems), unlisted])


def truth_follows_poses(
    truth: pd.DataFrame, images: pd.DataFrame, poses: pd.DataFrame
) -> pd.DataFrame:
    """Return whether true rotation, scale and place of a head are those of its person's skeleton.

    Args:
        truth: rows of TRUTH.
        images: rows of IMAGES, which name the poses.
        poses: rows of POSES with the third dimension; persons without are not judged.

    Returns:
        One finding a head.
    """
    known = truth.merge(images[["sample_id", "pose_id"]], on="sample_id", how="left").merge(
        poses[
            ["pose_id", "person_id", "head_rotation", "scale_px_per_m", "shift_px", "head_centre_m"]
        ],
        on=["pose_id", "person_id"],
        how="left",
        indicator="found",
    )
    flame = vectors(known["flame"], NUM_FLAME_PARAMETERS)
    rotation = vectors(known["head_rotation"], 9).reshape(-1, 3, 3)
    scale = known["scale_px_per_m"].to_numpy(np.float64)
    place = scale[:, None] * vectors(known["head_centre_m"], 3)[:, :2] + vectors(
        known["shift_px"], 2
    )
    six = np.concatenate([rotation[:, :, 0], rotation[:, :, 1]], axis=1)
    differences = {
        "rotation": np.abs(flame[:, ROTATION] - six).max(axis=1, initial=0),
        "scale": np.abs(flame[:, SCALE.start] / scale - 1),
        "place": np.abs(flame[:, SHIFT_XY] - place).max(axis=1, initial=0),
    }
    limits = {"rotation": 1e-3, "scale": 1e-3, "place": 0.05}
    problems = []
    for row, (name, found) in enumerate(zip(head_names(known), known["found"], strict=True)):
        problem = ""
        if found != "both":
            problem = f"{name} is of person {known['person_id'].iloc[row]}, whom its pose has not"
        elif np.isfinite(scale[row]):
            wrong = [key for key, limit in limits.items() if not differences[key][row] <= limit]
            if wrong:
                by = differences[wrong[0]][row]
                problem = f"{name}: {wrong[0]} differs from its pose's by {by:.4g}"
        problems.append(problem)
    return findings(head_names(known), problems)


def truth_follows_scenes(truth: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Check that true tone, hair, glasses and hat are those of the person in the scene.

    Args:
        truth: rows of TRUTH.
        captions: rows of CAPTIONS; those without a scene are not judged.

    Returns:
        One finding a head.
    """
    columns = ["skin_tone", "hair_style", "glasses", "hat"]
    people = [
        {"sample_id": item, "person_id": number, **{c: getattr(look, c) for c in columns}}
        for item, text in zip(captions["sample_id"], captions["scene"], strict=True)
        if text != NO_SCENE
        for number, look in enumerate(Scene.from_json(text).people)
    ]
    source = pd.DataFrame(people, columns=["sample_id", "person_id", *columns])
    with_scene = set(captions.loc[captions["scene"] != NO_SCENE, "sample_id"])
    judged = truth[truth["sample_id"].isin(with_scene)]
    return agree(judged, source, ["sample_id", "person_id"], columns, "truth", "the scene")


def truth_of_images(truth: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Check that truth is of images that exist, each person once, heads numbered on.

    Args:
        truth: rows of TRUTH.
        images: rows of IMAGES.

    Returns:
        Findings about heads, then about images.
    """
    of_image = agree(truth, images, ["sample_id"], ["split"], "truth", "images")
    items, problems = [], []
    for item, rows in truth.groupby("sample_id", sort=True):
        ids, persons = rows["head_id"].tolist(), rows["person_id"].tolist()
        problem = ""
        if ids != list(range(len(ids))):
            problem = f"{item}: heads are numbered {ids}, expected 0 to {len(ids) - 1}"
        elif len(set(persons)) < len(persons):
            problem = f"{item}: heads of persons {persons}, one of them twice"
        items.append(item)
        problems.append(problem)
    return joined([of_image, findings(items, problems)])


def people_without_heads(truth: pd.DataFrame, images: pd.DataFrame) -> tuple[float, list[str]]:
    """Return persons whose head is in no truth: wholly hidden, or lost.

    Args:
        truth: rows of TRUTH.
        images: rows of IMAGES whose heads are known exactly.

    Returns:
        Fraction of the persons, and the images concerned.
    """
    counts = truth.groupby("sample_id").size().reindex(images["sample_id"], fill_value=0).to_numpy()
    missing = images["num_people"].to_numpy() - counts
    concerned = [str(item) for item in images.loc[missing != 0, "sample_id"]]
    return float(np.abs(missing).sum() / max(images["num_people"].sum(), 1)), concerned


def heads_of_people(truth: pd.DataFrame, images: pd.DataFrame, most: float) -> pd.DataFrame:
    """Return whether no more persons are without a head than others hide, in one shard.

    Args:
        truth: rows of TRUTH.
        images: rows of IMAGES whose heads are known exactly.
        most: largest fraction of persons that is wholly hidden, over all shards; one shard may
            have four standard deviations more.

    Returns:
        One finding an image with another number of heads than of people; none where so few are
        hidden.
    """
    missing, concerned = people_without_heads(truth, images)
    people = float(images["num_people"].sum())
    if missing * people <= most * people + 4 * np.sqrt(most * people):
        return findings([], [])
    counts = truth.groupby("sample_id").size()
    asked = dict(zip(images["sample_id"], images["num_people"], strict=True))
    return findings(
        concerned,
        [f"{item}: {int(counts.get(item, 0))} heads of {asked[item]} people" for item in concerned],
    )


def verdicts_follow_heads(verdicts: pd.DataFrame, heads: pd.DataFrame) -> pd.DataFrame:
    """Check that a verdict counts the annotated heads and follows from its own counts.

    Args:
        verdicts: rows of VERDICTS.
        heads: rows of HEADS of the same images, made with the same threshold.

    Returns:
        One finding an image.
    """
    counts = heads.groupby("sample_id").size()
    problems = []
    for row in verdicts.to_dict("records"):
        item, number = row["sample_id"], row["num_heads"]
        annotated, problem = int(counts.get(item, 0)), ""
        content = number > 0 and number == row["num_heads_flipped"]
        content = content and row["num_heads_halves"] in (-1, number)
        content = content and row["num_faces_missed"] <= 0
        if number != annotated:
            problem = f"{item}: the verdict is on {number} heads, {annotated} are annotated"
        elif bool(row["keep"]) != (row["reason"] == _KEEP):
            problem = f"{item}: keep is {row['keep']}, the reason is {row['reason']}"
        elif row["keep"] and not content:
            problem = (
                f"{item} is kept with {number} heads, {row['num_heads_flipped']} mirrored, "
                f"{row['num_heads_halves']} when cut, {row['num_faces_missed']} faces alone"
            )
        problems.append(problem)
    return findings(verdicts["sample_id"], problems)


def dataset_follows(
    dataset: pd.DataFrame, verdicts: pd.DataFrame, heads: pd.DataFrame
) -> pd.DataFrame:
    """Return whether the dataset holds exactly the annotated heads of kept images, value by value.

    Args:
        dataset: rows of DATASET_HEADS of one shard.
        verdicts: rows of VERDICTS of that shard.
        heads: rows of HEADS of that shard.

    Returns:
        Findings about the dataset's heads, then about annotated heads missing from it.
    """
    columns = ["split", "bbox_xywh", "score", "flame", "flame_status", "teacher", "source"]
    on = ["sample_id", "head_id"]
    kept = set(verdicts.loc[verdicts["keep"].astype(bool), "sample_id"])
    wanted = heads[heads["sample_id"].isin(kept)]
    return joined(
        [
            agree(dataset, wanted, on, columns, "the dataset", "annotations of kept images"),
            agree(wanted, dataset, on, [], "annotations of kept images", "the dataset"),
        ]
    )


def one_split_a_pose(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return whether rows have their image's split and shard, and no pose is in two splits.

    Args:
        rows: columns `sample_id`, `split`, `shard`.
        images: rows of IMAGES.

    Returns:
        Findings about rows, then about poses.
    """
    of_pose = rows[["sample_id", "split"]].merge(images[["sample_id", "pose_id"]], on="sample_id")
    splits = of_pose.groupby("pose_id")["split"].agg(lambda s: ", ".join(sorted(set(s))))
    problems = [f"{pose} is in {names}" if "," in names else "" for pose, names in splits.items()]
    return joined(
        [
            agree(rows, images, ["sample_id"], ["split", "shard"], "verdicts", "images"),
            findings(splits.index, problems),
        ]
    )
