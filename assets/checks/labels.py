"""The suites of the labels that the head detector learns from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from assets.checks.accounts import configured, reported
from assets.checks.rules import Rule, Shelf, whole_suite
from ml.labels.coco import CocoDataset, read_coco
from ml.quality import head_invariants
from ml.quality.accounting import in_order, marked
from ml.quality.findings import agree, findings, joined
from ml.takedown.removal import taken_down

SPLITS = ("train", "val")
TRUTH_SOURCE = "source: renderer's truth"


def _labels(shelf: Shelf) -> dict[str, CocoDataset]:
    folder = shelf.ws.stage_dir("labels")
    return shelf.once(
        "labels", lambda: {split: read_coco(folder / f"{split}.json") for split in SPLITS}
    )


def _of_truth(shelf: Shelf) -> bool:
    """Return whether ground truth replaces an annotator, as recorded by the stage `labels`."""
    return any(data.description.endswith(TRUTH_SOURCE) for data in _labels(shelf).values())


def _boxes(shelf: Shelf) -> pd.DataFrame:
    rows = []
    for data in _labels(shelf).values():
        images = {image.image_id: image for image in data.images}
        for box in data.boxes:
            image = images[box.image_id]
            rows.append(
                (
                    image.sample_id,
                    image.shard,
                    box.annotation_id,
                    box.bbox_xywh,
                    image.width,
                    image.height,
                )
            )
    names = ["sample_id", "shard", "box_id", "bbox_xywh", "width", "height"]
    return pd.DataFrame(rows, columns=names)


def of_images(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Judge whether labelled images exist, in their split, with their size, and once."""
    rows = pd.DataFrame(
        [
            (image.sample_id, split, image.shard, image.width, image.height)
            for split, data in _labels(shelf).items()
            for image in data.images
        ],
        columns=["sample_id", "split", "shard", "width", "height"],
    )
    doubled = rows["sample_id"].duplicated()
    parts = [findings(rows["sample_id"], ["is labelled twice" if d else "" for d in doubled])]
    for shard, mine in rows.groupby("shard"):
        images = shelf.table("images", str(shard))
        columns = ["split", "shard", "width", "height"]
        parts.append(agree(mine, images, ["sample_id"], columns, "labels", "images"))
    return joined(parts)


def drawn_in_order(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Check that the labelled images are the first that the stage samples, and their number."""
    if not _of_truth(shelf):
        return findings([], [])
    from ml.stages.labels import LabelsConfig, draw_order

    config = shelf.once("labels configured", lambda: configured(shelf.ws, "labels", LabelsConfig))
    wanted = {"train": config.num_train, "val": config.num_val}
    gone = len(taken_down(shelf.ws.root))
    names = shelf.ws.shards
    images = pd.concat([shelf.table("images", name) for name in names], ignore_index=True)
    excluded = set(shelf.excluded("labels", "all"))
    parts, number = [], 0
    for split, data in _labels(shelf).items():
        taken = {image.sample_id for image in data.images}
        number += len(taken)
        drawn = draw_order(images[images["split"] == split], shelf.ws.seed)["sample_id"]
        order = [name for name in drawn if name not in excluded]
        parts.append(in_order(order, taken, "labels", wanted[split] - gone))
    counts = reported(shelf.ws, "labels", "stage")
    told = marked(counts, number, len(excluded), "labels", gone) if counts else findings([], [])
    return joined([*parts, told])


def as_the_truth(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Judge whether labels taken from the truth are its boxes; those of a person are not judged."""
    if not _of_truth(shelf):
        return findings([], [])
    parts = []
    for shard, mine in _boxes(shelf).groupby("shard"):
        truth = shelf.table("truth", str(shard))
        parts.append(head_invariants.labels_follow_truth(mine, truth))
    return joined(parts)


def images_have_labels(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Judge whether every labelled image with a visible true head has a box for each of them."""
    if not _of_truth(shelf):
        return findings([], [])
    items, problems = [], []
    for data in _labels(shelf).values():
        # One shard after the other: the shelf keeps the tables of one.
        for image in sorted(data.images, key=lambda image: image.shard):
            truth = shelf.table("truth", image.shard)
            own = truth[(truth["sample_id"] == image.sample_id) & (truth["visible"] > 0)]
            number = len(data.boxes_of(image.image_id))
            items.append(image.sample_id)
            told = f"{image.sample_id}: {number} labels of {len(own)} visible heads"
            problems.append("" if number == len(own) else told)
    return findings(items, problems)


LABEL_RULES = whole_suite(
    "label_rules",
    Rule("of_images", "Each labelled image exists once, with its split and size.", of_images),
    Rule("accounted", "Every selected image is labelled or excluded.", drawn_in_order),
    Rule(
        "as_the_truth", "Labels that replace an annotator's equal the ground truth.", as_the_truth
    ),
    Rule("all_heads", "Every visible head of a labelled image is labelled.", images_have_labels),
    sharded=False,
)

SUITES = (LABEL_RULES,)
