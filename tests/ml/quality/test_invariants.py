"""Invariants on a small clean shard: nothing is found; each planted fault is, by name."""

import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest

from ml.captions.scene import NO_SCENE, PersonLook, Scene
from ml.quality import head_invariants, invariants
from ml.quality.findings import agree
from ml.records.ids import sample_seed, stable_fraction
from ml.records.shards import ShardReader, shard_writer
from tests.fixtures.findings import problems_of

SIZE = 64


def look(tone):
    return PersonLook(
        "person", tone, "shirt", "red", "plain", "jeans", "blue", "short", "black", "none", "none",
        "none",
    )  # fmt: skip


def rotation(yaw):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0, s], [0, -1, 0], [s, 0, -c]], np.float32)


def flame(turn, scale, place, salt):
    vector = np.zeros(413, np.float32)
    vector[0] = salt
    vector[403:409] = np.concatenate([turn[:, 0], turn[:, 1]])
    vector[409:411], vector[412] = place, scale
    return vector


@pytest.fixture
def shard():
    """Two poses of two people each, their captions, images, truth, annotations and verdicts."""
    poses, captions, images, truth, heads, listed, verdicts = ([] for _ in range(7))
    for number in range(2):
        pose, item = f"pose-00000-{number:05d}", f"image-00000-{number:05d}"
        split = ("train", "val")[number]
        scene = Scene("a park", "overcast light", (look(2 + number), look(7 + number)))
        seed = sample_seed(5, "images", item)
        common = {"sample_id": item, "pose_id": pose, "split": split, "num_people": 2}
        captions.append({**common, "scene": scene.to_json(), "seed": seed})
        images.append(
            {**common, "seed": seed, "width": SIZE, "height": SIZE, "shard": "shard-00000"}
        )
        for person in range(2):
            turn = rotation(0.2 + number + person)
            centre, shift = np.float32([0.02, 0.01, 0]), np.float32([16 + 30 * person, 30])
            poses.append(
                {
                    "pose_id": pose, "person_id": person, "split": split, "num_people": 2,
                    "head_rotation": turn.ravel(), "scale_px_per_m": np.float32(80),
                    "shift_px": shift, "head_centre_m": centre,
                }
            )  # fmt: skip
            place = 80 * centre[:2] + shift
            box = np.float32([*(place - (9, 10)), 18, 20])
            truth.append(
                {
                    "sample_id": item, "head_id": person, "person_id": person, "split": split,
                    "bbox_xywh": box, "visible": 1.0, "inside": 1.0,
                    "flame": flame(turn, 80, place, number + person / 10),
                    "skin_tone": scene.people[person].skin_tone, "hair_style": "short",
                    "glasses": "none", "hat": "none",
                }
            )  # fmt: skip
            heads.append(
                {
                    "sample_id": item, "head_id": person, "split": split,
                    "bbox_xywh": box + np.float32(1), "score": 0.9 - person / 10,
                    "flame": flame(turn, 81, place + 1, 0.3 + number + person / 10),
                    "flame_status": "ok", "threshold": 0.5, "teacher": "t", "source": "pseudo",
                    "head_model": "m", "shard": "shard-00000",
                }
            )  # fmt: skip
        listed.append({"sample_id": item, "split": split, "num_heads": 2})
        verdicts.append(
            {
                "sample_id": item, "split": split, "shard": "shard-00000", "keep": True,
                "reason": "keep", "num_heads": 2, "num_heads_flipped": 2, "num_heads_halves": -1,
                "num_faces_missed": -1,
            }
        )  # fmt: skip
    names = ("poses", "captions", "images", "truth", "heads", "listed", "verdicts")
    tables = (poses, captions, images, truth, heads, listed, verdicts)
    made = {name: pd.DataFrame(rows) for name, rows in zip(names, tables, strict=True)}
    return {**made, "dataset": made["heads"].copy()}


def judge(t):
    """All findings by rule."""
    rules = {
        "captions": invariants.captions_follow_poses(t["captions"], t["poses"]),
        "seeds": invariants.seeds_derived(t["captions"], 5, "images", "sample_id"),
        "images": invariants.images_follow_captions(t["images"], t["captions"]),
        "truth_poses": invariants.truth_follows_poses(t["truth"], t["images"], t["poses"]),
        "truth_scenes": invariants.truth_follows_scenes(t["truth"], t["captions"]),
        "truth_images": invariants.truth_of_images(t["truth"], t["images"]),
        "truth_sound": head_invariants.heads_sound(
            t["truth"], head_invariants.whole_heads(t["truth"])
        ),
        "sound": head_invariants.heads_sound(t["heads"]),
        "inside": head_invariants.boxes_inside(t["heads"], t["images"]),
        "scores": head_invariants.scores_sound(t["heads"]),
        "status": head_invariants.parameters_where_told(t["heads"]),
        "provenance": head_invariants.one_provenance(t["heads"], "m"),
        "leak": head_invariants.not_the_truth(t["heads"], t["truth"]),
        "listed": head_invariants.annotated_images(t["listed"], t["heads"], t["images"]),
        "verdicts": invariants.verdicts_follow_heads(t["verdicts"], t["heads"]),
        "splits": invariants.one_split_a_pose(t["verdicts"], t["images"]),
        "dataset": invariants.dataset_follows(t["dataset"], t["verdicts"], t["heads"]),
        "distinct": head_invariants.distinct(
            t["truth"]["flame"], head_invariants.head_names(t["truth"]), "parameters"
        ),
    }
    return {name: found for name, rule in rules.items() if (found := problems_of(rule))}


def test_a_clean_shard_has_no_findings(shard):
    assert judge(shard) == {}


def put(frame, row, column, value):
    values = frame[column].tolist()
    values[row] = value
    frame[column] = pd.Series(values, index=frame.index, dtype=frame[column].dtype)


def change(frame, row, column, index, value):
    vector = np.array(frame[column].iloc[row], np.float32)
    vector[index] = value
    put(frame, row, column, vector)


def turned(frame, row):
    vector = np.array(frame["flame"].iloc[row])
    cos, sin = np.cos(np.radians(5)), np.sin(np.radians(5))
    by = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    vector[403:406], vector[406:409] = by @ vector[403:406], by @ vector[406:409]
    put(frame, row, "flame", vector.astype(np.float32))


FAULTS = {
    "another split": (lambda t: put(t["captions"], 0, "split", "test"), {"captions", "images"}),
    "another number": (lambda t: put(t["captions"], 0, "num_people", 3), {"captions", "images"}),
    "scenes exchanged": (
        lambda t: t["captions"].update({"scene": dict(enumerate(t["captions"]["scene"][::-1]))}),
        {"truth_scenes"},
    ),
    "another pose": (
        lambda t: put(t["captions"], 0, "pose_id", "pose-00000-00001"),
        {"captions", "images"},
    ),
    "another run": (lambda t: put(t["captions"], 0, "seed", 3), {"seeds", "images"}),
    "rotation turned": (lambda t: turned(t["truth"], 1), {"truth_poses"}),
    "place moved": (
        lambda t: change(t["truth"], 1, "flame", 409, 60.0),
        {"truth_poses", "truth_sound"},
    ),
    "scale in mm": (
        lambda t: change(t["truth"], 1, "flame", 412, 0.08),
        {"truth_poses", "truth_sound"},
    ),
    "unknown person": (
        lambda t: put(t["truth"], 1, "person_id", 4),
        {"truth_poses", "truth_scenes"},
    ),
    "person twice": (
        lambda t: put(t["truth"], 1, "person_id", 0),
        {"truth_poses", "truth_scenes", "truth_images"},
    ),
    "first truth lost": (lambda t: t.update(truth=t["truth"].iloc[1:]), {"truth_images"}),
    "tone exchanged": (lambda t: put(t["truth"], 1, "skin_tone", 1), {"truth_scenes"}),
    "skewed second column": (
        lambda t: change(t["heads"], 1, "flame", 407, -1.2),
        {"sound", "dataset"},
    ),
    "box elsewhere": (
        lambda t: change(t["heads"], 1, "bbox_xywh", 0, 2.0),
        {"sound", "dataset"},
    ),
    "box outside": (
        lambda t: change(t["heads"], 1, "bbox_xywh", 2, 60.0),
        {"inside", "dataset"},
    ),
    "NaN score": (lambda t: put(t["heads"], 1, "score", np.nan), {"scores", "dataset"}),
    "score under the threshold": (
        lambda t: put(t["heads"], 1, "score", 0.1),
        {"scores", "dataset"},
    ),
    "scores not sorted": (lambda t: put(t["heads"], 1, "score", 0.95), {"scores", "dataset"}),
    "no parameters": (lambda t: put(t["heads"], 1, "flame", None), {"status", "dataset"}),
    "called small": (
        lambda t: (
            put(t["heads"], 1, "flame", None),
            put(t["heads"], 1, "flame_status", "small"),
            change(t["heads"], 1, "bbox_xywh", 3, 30.0),
        ),
        {"status", "dataset"},
    ),
    "another teacher": (lambda t: put(t["heads"], 1, "teacher", "x"), {"provenance", "dataset"}),
    "another head model": (lambda t: put(t["heads"], 1, "head_model", "x"), {"provenance"}),
    "truth as label": (
        lambda t: put(t["heads"], 1, "bbox_xywh", t["truth"]["bbox_xywh"].iloc[1]),
        {"leak", "dataset"},
    ),
    "true parameters": (
        lambda t: put(t["heads"], 1, "flame", t["truth"]["flame"].iloc[1]),
        {"leak", "dataset"},
    ),
    "a head lost": (
        lambda t: t.update(heads=t["heads"].iloc[:-1]),
        {"listed", "verdicts", "dataset"},
    ),
    "kept against its counts": (
        lambda t: put(t["verdicts"], 0, "num_heads_flipped", 1),
        {"verdicts"},
    ),
    "kept against its parts": (
        lambda t: put(t["verdicts"], 0, "num_heads_halves", 3),
        {"verdicts"},
    ),
    "kept with a face alone": (
        lambda t: put(t["verdicts"], 0, "num_faces_missed", 1),
        {"verdicts"},
    ),
    "kept against its reason": (lambda t: put(t["verdicts"], 0, "reason", "no_head"), {"verdicts"}),
    "test counted as train": (lambda t: put(t["verdicts"], 1, "split", "train"), {"splits"}),
    "dataset without a head": (lambda t: t.update(dataset=t["dataset"].iloc[1:]), {"dataset"}),
    "dataset of a removed image": (
        lambda t: (
            put(t["verdicts"], 0, "keep", False),
            put(t["verdicts"], 0, "reason", "no_head"),
        ),
        {"dataset"},
    ),
    "parameters copied": (
        lambda t: put(t["truth"], 2, "flame", t["truth"]["flame"].iloc[0]),
        {"distinct", "truth_poses"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_rules_alone(shard, fault):
    plant, expected = FAULTS[fault]
    plant(shard)
    found = judge(shard)
    assert set(found) == expected
    assert all(
        ("image-00000" in text) or ("pose-00000" in text)
        for texts in found.values()
        for text in texts
    )


def test_a_pose_in_two_splits_is_named(shard):
    shard["images"]["pose_id"] = "pose-00000-00000"
    found = problems_of(invariants.one_split_a_pose(shard["verdicts"], shard["images"]))
    assert found == ["pose-00000-00000 is in train, val"]


def test_captions_without_a_scene_judge_no_look(shard):
    shard["captions"]["scene"] = NO_SCENE
    assert judge(shard) == {}


def test_people_whose_head_is_nowhere_are_counted(shard):
    assert invariants.people_without_heads(shard["truth"], shard["images"]) == (0.0, [])
    fewer = shard["truth"].iloc[:-1]
    assert invariants.people_without_heads(fewer, shard["images"]) == (0.25, ["image-00000-00001"])


def test_in_a_shard_no_more_heads_are_missing_than_people_hide():
    images = pd.DataFrame(
        {"sample_id": [f"image-{n}" for n in range(50)], "num_people": [1] * 40 + [2] * 10}
    )
    rows = [i for i, n in zip(images.sample_id, images.num_people, strict=True) for _ in range(n)]
    truth = pd.DataFrame({"sample_id": rows})
    # 2 % of 60 people, and four standard deviations: 1.2 + 4.4.
    for number, most, told in ((5, 0.02, 0), (6, 0.02, 6), (1, 0.0, 1), (0, 0.0, 0)):
        found = invariants.heads_of_people(truth.iloc[number:], images, most)
        assert len(problems_of(found)) == told
    found = problems_of(invariants.heads_of_people(truth.iloc[:-1], images, 0.0))
    assert found == ["image-49: 1 heads of 2 people"]
    twice = pd.concat([truth, truth.iloc[:1]])
    found = problems_of(invariants.heads_of_people(twice, images, 0.0))
    assert found == ["image-0: 2 heads of 1 people"]


def written(folder, values):
    rows = []
    with shard_writer(folder / "shard-00000.tar") as writer:
        for number, value in enumerate(values):
            image = np.full((SIZE, SIZE, 3), value, np.uint8)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            item = f"image-00000-{number:05d}"
            writer.add(item, {"jpg": data})
            rows.append(
                {
                    "sample_id": item, "width": SIZE, "height": SIZE, "mean_luma": float(value),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows), ShardReader(folder / "shard-00000.tar")


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("sha256", "0" * 64, "another sha256"),
        ("height", 32, "64x64 px, the table says 64x32"),
        ("mean_luma", 90.0, "mean brightness 50.0, the table says 90.0"),
        ("mean_luma", np.nan, "the table says nan"),
        ("sample_id", "image-00000-00009", "cannot be read"),
    ],
)
def test_stored_bytes_are_those_of_the_table(tmp_path, column, value, told):
    images, reader = written(tmp_path, [50, 200])
    assert problems_of(invariants.image_files(images, reader)) == []
    put(images, 0, column, value)
    found = problems_of(invariants.image_files(images, reader))
    assert told in found[0]
    # Under another id the stored image is in no table.
    assert len(found) == 1 + (column == "sample_id")


def test_labels_are_the_truth_cut_at_the_border():
    truth = pd.DataFrame({"sample_id": ["a", "a"], "bbox_xywh": [[-5, 2, 20, 20], [30, 30, 9, 9]]})
    labels = pd.DataFrame(
        {
            "sample_id": ["a", "a"], "box_id": [1, 2], "width": SIZE, "height": SIZE,
            "bbox_xywh": [[0, 2, 15, 20], [30, 30, 9, 9]],
        }
    )  # fmt: skip
    assert problems_of(head_invariants.labels_follow_truth(labels, truth)) == []
    put(labels, 1, "bbox_xywh", [50, 30, 9, 9])
    assert problems_of(head_invariants.labels_follow_truth(labels, truth)) == [
        "a label 2 is 20.0 px off any head"
    ]


def test_crops_are_split_by_their_hash():
    ids = [f"crop-{number:06d}" for number in range(12)]
    fractions = [stable_fraction(item) for item in ids]
    limit = sorted(fractions)[3]
    crops = pd.DataFrame(
        {
            "crop_id": ids, "visible": 1.0, "bbox_xywh": [[10, 10, 20, 24]] * 12,
            "flame": [flame(rotation(0.1), 100, (20, 22), n) for n in range(12)],
            "split": ["val" if f < limit else "train" for f in fractions],
        }
    )  # fmt: skip
    assert problems_of(head_invariants.crops_sound(crops)) == []
    first_train = int(np.argmax(crops["split"] == "train"))
    put(crops, first_train, "split", "val")
    assert problems_of(head_invariants.crops_sound(crops)) != []


def test_agreement_names_the_column_and_both_values():
    rows = pd.DataFrame({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "v": [[1, 2]] * 3})
    source = pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.5], "v": [[1, 3], [1, 2]]})
    assert problems_of(agree(rows, source, ["id"], ["x", "v"], "here", "there")) == [
        "a: v is [1, 2] in here and [1, 3] in there",
        "b: x is 2 in here and 2.5 in there",
        "c of here is not in there",
    ]
    assert len(problems_of(agree(rows, source, ["id"], ["x", "v"], "here", "there", 1.0))) == 1
