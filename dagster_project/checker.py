"""Judges data on disk, for the job that runs checks without making anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_project.factory import check_result, check_stage
from dagster_project.pipeline import Pipeline


@dataclass(frozen=True)
class Checker:
    """Runs the checks of stages that have finished data.

    Attributes:
        pipeline: the project.
    """

    pipeline: Pipeline

    def judge(self, stages: Sequence[str] = ()) -> Iterator[tuple[dg.AssetCheckEvaluation, str]]:
        """Judge stages.

        Args:
            stages: which; none given: all.

        Yields:
            A check's evaluation, and the problem in words if it failed and is critical.

        Raises:
            ValueError: there is no such stage.
        """
        if unknown := sorted(set(stages) - set(self.pipeline.graph)):
            raise ValueError(f"no stages {unknown}; there are {list(self.pipeline.graph)}")
        for stage in self.pipeline.graph:
            if stages and stage not in stages:
                continue
            units = list(self.pipeline.markers(stage, self.pipeline.units(stage)))
            if not units:
                continue
            for outcome in check_stage(self.pipeline, self.pipeline.assets[stage], units):
                result = check_result(self.pipeline, stage, outcome)
                evaluation = dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(stage),
                    check_name=outcome.name,
                    passed=outcome.passed,
                    severity=result.severity,
                    description=result.description,
                    metadata=result.metadata,
                )
                yield evaluation, outcome.sentence() if outcome.blocks else ""
