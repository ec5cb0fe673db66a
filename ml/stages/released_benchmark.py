"""Stage `released_benchmark`: the benchmark of the detector that was trained on the release."""

from __future__ import annotations

from typing import Final

from ml.records.atomic import remove, write_json
from ml.records.exclusions import Exclusions
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.stages import benchmark
from ml.stages.benchmark import BenchmarkConfig
from ml.stages.released_dataset import released_view

STAGE: Final = "released_benchmark"
MODELS: Final = {"released_model": "released labels"}


class ReleasedBenchmarkConfig(BenchmarkConfig):
    """The same benchmark on the release's test images, whose labels are pseudo-labels."""

    enabled: bool = False
    """Whether to run the benchmark; otherwise the stage only records that it is disabled."""

    @property
    def switched_off(self) -> bool:
        """Whether nothing is measured."""
        return not self.enabled


def run(ws: Workspace, config: ReleasedBenchmarkConfig) -> StageReport:
    """Benchmark the released model, or say that it was not asked for.

    Args:
        ws: the workspace; released model, released dataset and head model must exist.
        config: limits and sizes.

    Returns:
        The report of `benchmark`.
    """
    if not config.switched_off:
        return benchmark.run(released_view(ws), config, STAGE, MODELS)
    remove(ws.stage_dir(STAGE))
    # `dvc metrics show` complains of every file of dvc.yaml that is not there.
    for name in ("metrics.json", benchmark.HEADLINE_NAME):
        write_json(ws.stage_dir(STAGE) / name, {})
    Exclusions(STAGE).write(ws, STAGE)
    note = f"no; set {STAGE}.enabled in params.yaml to true, or take the profile official"
    return StageReport(num_in=0, num_out=0, num_excluded=0, metadata={"measured": note})
