"""Label quality where there is nothing to compare with."""

from __future__ import annotations

import json

from ml.records.tables import EXCLUSIONS, TRUTH, empty_table, read_table, write_table
from ml.records.workspace import Workspace
from ml.stages.annotation_quality import STAGE, AnnotationQualityConfig, run


def test_images_without_truth_are_recorded_as_such(tmp_path):
    ws = Workspace(tmp_path, seed=1, num_shards=2, shard_size=4)
    for shard in ws.shards:
        write_table(ws.table_path("truth", shard), empty_table(TRUTH), TRUTH)
    report = run(ws, AnnotationQualityConfig())
    assert (report.num_in, report.num_out) == (0, 0)
    assert str(report.metadata["truth"]).startswith("none: the images' generator")
    folder = ws.stage_dir(STAGE)
    assert json.loads((folder / "metrics.json").read_text()) == {}
    assert not len(read_table(folder / f"{STAGE}.exclusions.parquet", EXCLUSIONS))
