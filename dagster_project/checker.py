"""Check existing data, for the job that runs checks without materialising anything."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_project.pipeline import Pipeline
from dagster_project.resources import ProjectResource
from dagster_project.runner import check_result, check_stage
from ops.resources import Judge


@dataclass(frozen=True)
class Checker:
    """Runs the checks of stages that have finished data.

    Attributes:
        pipeline: the project.
    """

    pipeline: Pipeline

    def judge(self, stages: Sequence[str] = ()) -> Iterator[tuple[dg.AssetCheckEvaluation, str]]:
        """Check stages; every byte of their files is read again.

        Args:
            stages: which; none given: all.

        Yields:
            A check's evaluation, and the problem in words if it failed and is critical.

        Raises:
            ValueError: there is no such stage.
        """
        self.pipeline.require_stages("check", stages)
        for stage in self.pipeline.graph:
            if stages and stage not in stages:
                continue
            units = list(self.pipeline.markers(stage, self.pipeline.units(stage)))
            if not units:
                continue
            importlib.import_module(self.pipeline.assets[stage].asset_module)
            for outcome in check_stage(
                self.pipeline, self.pipeline.assets[stage], units, audit=True
            ):
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


class CheckerResource(Judge):
    """Checks stages of a project."""

    project: ProjectResource
    """The project."""

    def judge(self, stages: Sequence[str]) -> Iterator[tuple[dg.AssetCheckEvaluation, str]]:
        """Yield a check's evaluation, and the problem in words if it failed and is critical.

        Args:
            stages: which; none given: all that have finished data.
        """
        yield from Checker(self.project.pipeline).judge(stages)
