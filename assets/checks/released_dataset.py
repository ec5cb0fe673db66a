"""The suites of the imported release: no data lost in the import, and the copy's missing parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pandas as pd

from assets.checks.accounts import reported
from assets.checks.annotations import boxes_in_images, heads_of_images
from assets.checks.rules import Rule, Shelf, whole_suite
from assets.checks.tables import read_raw
from ml.quality.accounting import account, marked
from ml.quality.findings import findings, joined
from ml.takedown.removal import taken_down

STAGE = "released_dataset"
FindInShard = Callable[[Shelf, str], pd.DataFrame]


def _in_all(find: FindInShard) -> Callable[[Shelf, Sequence[str]], pd.DataFrame]:
    """Return a rule about every imported shard; none where the stage is switched off."""

    def in_all(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
        from ml.stages.released_dataset import released_view

        view = released_view(shelf.ws)
        mine = shelf.once(STAGE, lambda: Shelf(view))
        return joined([find(mine, shard) for shard in view.shards])

    return in_all


def _accounted(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Check that the verdicts list every image of the shards once, and match the reported count."""
    folder = shelf.ws.stage_dir(STAGE)
    metrics = json.loads((folder / "metrics.json").read_text())
    if not metrics:
        return findings([], [])
    listed = [str(item) for item in read_raw(folder / "verdicts.parquet")["sample_id"]]
    tables = sorted((folder / "images").glob("shard-*.parquet"))
    stored = [str(item) for path in tables for item in read_raw(path)["sample_id"]]
    told, problem = metrics["num_images"], ""
    if len(listed) != told:
        problem = f"{len(listed)} images have a verdict, the stage reported {told}"
    counts = reported(shelf.ws, STAGE, "stage")
    excluded = shelf.excluded(STAGE, "all")
    gone = len(taken_down(shelf.ws.root))
    return joined(
        [
            account(stored, listed, (), "the shards", "the verdicts"),
            findings(["num_images"], [problem]),
            marked(counts, len(listed), len(excluded), STAGE, gone) if counts else joined([]),
        ]
    )


def _splits(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Return whether there is something to train on and something to validate on."""
    metrics = json.loads((shelf.ws.stage_dir(STAGE) / "metrics.json").read_text())
    empty = [name for name in ("train", "val") if metrics and not metrics[f"num_{name}"]]
    return findings(empty, [f"no image of the split {name}" for name in empty])


def _lacks(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Return the parts of the published release that are missing from the copy."""
    path = shelf.ws.stage_dir(STAGE) / "lacks.csv"
    if not path.is_file():
        return findings([], [])
    rows = pd.read_csv(path, dtype=str)
    return findings(rows["where"], rows["where"] + ": " + rows["detail"])


RELEASE_RULES = whole_suite(
    "release_rules",
    Rule("accounted", "Every image of the shards is in the dataset, once.", _accounted),
    Rule("splits_filled", "There are images to train and to validate on.", _splits),
    Rule(
        "heads_of_images",
        "As many heads are listed as each image has, in its split.",
        _in_all(heads_of_images),
    ),
    Rule(
        "boxes_in_images",
        "A label is inside its image.",
        _in_all(boxes_in_images),
        "warning",
    ),
    Rule("nothing_lacks", "The copy is what was published.", _lacks, "warning"),
    sharded=False,
)

SUITES = (RELEASE_RULES,)
