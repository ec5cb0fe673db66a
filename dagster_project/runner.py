"""The frame of every stage: inputs, missing shards, checks, DVC, and Dagster's metadata.

    inputs as recorded -> make what is missing -> checks -> dvc.lock -> materialization

A stage is made the same way from the UI, from the command line and from `dvc repro`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import dagster as dg

from assets.checks.validation import Outcome, validate
from assets.stage_asset import (
    LINEAGE,
    UNALTERED,
    UNALTERED_WHY,
    StageEvents,
    StageRunner,
    suites_of,
)
from dagster_project.console import say, stage_line
from dagster_project.dvc_sync import Versions, data_version
from dagster_project.engine import EngineError, ShardTask
from dagster_project.locks import ShardLocks, StageLock
from dagster_project.markers import WHOLE, Marker, content_version
from dagster_project.metadata import Metadata, check_metadata, shard_table, table, unit_metadata
from dagster_project.pages import write_page
from dagster_project.pipeline import InputError, Pipeline
from dagster_project.resources import MLflowResource, ProjectResource, ShardEngine
from dagster_project.stage import Stage
from ml.records.config import StageConfig
from ml.records.determinism import one_blas_thread
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.training.tracking import NullTracker, TrackingUnavailable

FORCE = "vggheads/force"
"""Run tag: rerun everything, also finished units."""
DATA_DOCS = "reports/data_docs"


class RecordedStageRunner(StageRunner):
    """Makes stages of a project and records them in dvc.lock."""

    project: ProjectResource
    """The project."""
    engine: ShardEngine
    """Makes the shards."""
    mlflow: MLflowResource
    """Where trainings report to."""

    def make(self, context: dg.AssetExecutionContext) -> StageEvents:
        """Run missing units of the stage, check and record them; if only checks run, check only.

        Args:
            context: Dagster's, of the stage's asset.
        """
        pipeline = self.project.pipeline
        # By the op's name: of an asset of which only checks are selected no key is left.
        stage = pipeline.assets[context.op_def.name]
        if not context.selected_asset_keys:
            yield from judge_only(pipeline, stage, context)
        else:
            yield from StageRun(pipeline, stage, context, self.engine, self.mlflow).execute()


def judge_only(
    pipeline: Pipeline, stage: Stage, context: dg.AssetExecutionContext
) -> Iterator[dg.AssetCheckResult]:
    """Run the selected checks of a stage on finished data; nothing is made.

    Raises:
        dg.Failure: nothing is finished.
    """
    units = list(pipeline.markers(stage.name, pipeline.units(stage.name)))
    if not units:
        raise dg.Failure(
            f"{stage.name}: nothing to check, no shard of it is finished; materialise it first",
            allow_retries=False,
        )
    selected = {key.name for key in context.selected_asset_check_keys}
    for outcome in check_stage(pipeline, stage, units):
        if outcome.name in selected:
            yield check_result(pipeline, stage.name, outcome)


def check_stage(
    pipeline: Pipeline, stage: Stage, units: Sequence[str], *, audit: bool = False
) -> list[Outcome]:
    """Check existing data: first that files are unaltered, then the stage's suites.

    Args:
        pipeline: the project.
        stage: the stage.
        units: the shards to judge.
        audit: whether to read every byte of the files again.
    """
    docs = pipeline.root / DATA_DOCS
    outcomes = [unaltered_outcome(pipeline.altered(stage.name, units, audit=audit))]
    for suite in suites_of(stage.name):
        outcomes += validate(pipeline.workspace(), suite, units, docs)
    return outcomes


def unaltered_outcome(altered: Sequence[str]) -> Outcome:
    """Return the outcome of the check that files are as they were written."""
    return Outcome(
        suite="files",
        name=UNALTERED,
        passed=not altered,
        severity="critical",
        why=UNALTERED_WHY,
        observed=f"altered since: {', '.join(altered)}" if altered else "all as written",
    )


def check_result(pipeline: Pipeline, asset: str, outcome: Outcome) -> dg.AssetCheckResult:
    """Return an outcome as Dagster shows it."""
    critical = outcome.severity == "critical"
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=outcome.name,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=None if outcome.passed else outcome.sentence(),
        metadata=check_metadata(outcome, pipeline.root, DATA_DOCS),
    )


def failure_text(stage: str, blocking: Sequence[Outcome]) -> str:
    """Return why a stage was not recorded, and the remedy."""
    lines = "\n".join(f"  - {outcome.sentence()}" for outcome in blocking)
    return (
        f"{stage}: {len(blocking)} critical checks fail; nothing is recorded and nothing that "
        f"depends on it may run:\n{lines}\n"
        f"  If the files were altered, `vggheads materialize {stage} --force` makes them again "
        "(with `--shard NAME` only one shard); if the values are right, change the check."
    )


@dataclass
class StageRun:
    """One materialisation of one stage.

    Attributes:
        pipeline: the project.
        asset: the stage.
        context: Dagster's.
        engine: makes shards.
        mlflow: opens the run of a tracked stage.
        config: the stage's configuration, once it has been read.
        reports: reports of the units made in this run.
        url: address of the MLflow run, empty without one.
    """

    pipeline: Pipeline
    asset: Stage
    context: dg.AssetExecutionContext
    engine: ShardEngine
    mlflow: MLflowResource
    config: StageConfig | None = None
    reports: dict[str, StageReport] = field(default_factory=dict)
    url: str = ""

    @property
    def _config(self) -> StageConfig:
        assert self.config is not None
        return self.config

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.asset.name

    def execute(self) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Make, check, record; yield check results, then the materialization.

        Raises:
            dg.Failure: inputs or parameters are wrong, or a critical check fails; nothing was
                recorded.
        """
        started = time.monotonic()
        units = self.pipeline.units(self.stage)
        if self.asset.partitioned:
            units = self._partitions()
        self._look_ahead()
        self._prepare(units)
        lock = StageLock(self.pipeline.root, self.stage)
        with lock.shared(), one_blas_thread(), self._noting_finished_units():
            self._make(units)
        # No process makes shards of it from here on.
        with lock.alone():
            # What workers left that were lost within this run.
            self.pipeline.tidy(self.stage)
            # All shards are checked before recording, also those of earlier runs.
            ready = not self.pipeline.unfinished(self.stage, self.pipeline.units(self.stage))
            judged = self.pipeline.units(self.stage) if ready else units
            outcomes = check_stage(self.pipeline, self.asset, judged)
            selected = {key.name for key in self.context.selected_asset_check_keys}
            for outcome in outcomes:
                if outcome.name in selected:
                    yield check_result(self.pipeline, self.stage, outcome)
            if blocking := [outcome for outcome in outcomes if outcome.blocks]:
                raise dg.Failure(failure_text(self.stage, blocking), allow_retries=False)
            versions = self._record(units)
            markers = self.pipeline.markers(self.stage, units)
            if self.reports:
                write_page(self.pipeline, self.stage, time.monotonic() - started)
            yield self._result(markers, versions)
        self._say(markers, outcomes, versions is not None, time.monotonic() - started)

    def _look_ahead(self) -> None:
        """Check that all models are available, whichever entry point started the run.

        Raises:
            dg.Failure: each problem of the stage is a line of it.
        """
        from dagster_project.preflight import ensure

        if problems := ensure(self.pipeline, [self.stage]):
            raise dg.Failure(
                "\n".join(["preflight:", *(f"  - {problem}" for problem in problems)]),
                allow_retries=False,
            )

    def _partitions(self) -> list[str]:
        """Return the shards that this run is for."""
        if not (self.context.has_partition_key or self.context.has_partition_key_range):
            shards = self.pipeline.shards
            raise dg.Failure(
                f"{self.stage}: this run names no partitions, and the stage is made in "
                f"{len(shards)}, {shards[0]} to {shards[-1]}; in the UI choose 'Materialize' on "
                "the assets and then the partitions, or use `vggheads demo`",
                allow_retries=False,
            )
        return list(self.context.partition_keys)

    def _prepare(self, units: Sequence[str]) -> None:
        """Check inputs and parameters; remove leftovers of killed runs and forced units."""
        try:
            self.pipeline.require_inputs(self.stage, units)
            self.config = self.pipeline.params.config(self.asset)
        except (InputError, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        with StageLock(self.pipeline.root, self.stage).alone_at_once() as alone:
            if alone:
                self.pipeline.tidy(self.stage)
        if self._forced():
            self.pipeline.forget(self.stage, units)

    @contextmanager
    def _noting_finished_units(self) -> Iterator[None]:
        """Report the finished shards of a run that fails within; Dagster shows others as failed.

        They are on disk and will not be made again; they are judged when all are there.
        """
        finished = False
        try:
            yield
            finished = True
        finally:
            if not finished and self.asset.partitioned:
                made = self.pipeline.markers(self.stage, list(self.reports))
                for unit, marker in made.items():
                    values = unit_metadata(self.pipeline.root, marker)
                    values["checks"] = dg.MetadataValue.text("not run yet: the run failed")
                    self.context.log_event(
                        dg.AssetMaterialization(self.stage, partition=unit, metadata=values)
                    )

    def _make(self, units: Sequence[str]) -> None:
        """Make missing or outdated units; wait for those that another run is making."""
        missing = self.pipeline.unfinished(self.stage, units)
        while missing:
            locks = ShardLocks(self.pipeline.root, self.stage)
            try:
                elsewhere = self._make_here(missing, locks)
            except (EngineError, TrackingUnavailable) as error:
                raise dg.Failure(f"{self.stage}: {error}", allow_retries=False) from error
            finally:
                locks.release_all()
            for unit in elsewhere:
                locks.await_release(unit)
            missing = self.pipeline.unfinished(self.stage, elsewhere)

    def _make_here(self, missing: Sequence[str], locks: ShardLocks) -> list[str]:
        """Make units in this run; returns those that another run is making now."""
        fingerprints = self.pipeline.fingerprints(self.stage, missing)
        elsewhere: list[str] = []
        tasks = self._claim(missing, fingerprints, locks, elsewhere)
        if self.asset.sharded:
            made = self.engine.make(tasks, len(missing), self.pipeline, self.stage)
            with closing(made):
                for unit, report in progress(made, self.stage, total=len(missing)):
                    self._finish(unit, fingerprints[unit], report)
                    locks.release(unit)
        else:
            for task in tasks:
                self._make_step()
                self._finish(WHOLE, fingerprints[WHOLE], self._make_whole(task.ws))
        return elsewhere

    def _make_step(self) -> None:
        """Run the stage's step for shards where it is missing or outdated."""
        step, pipeline = self.asset.step, self.pipeline
        if step is None:
            return
        missing = pipeline.start_step(self.stage, force=self._forced())
        tasks = (
            ShardTask(step.function, pipeline.workspace(fingerprint), self._config, shard)
            for shard, fingerprint in missing.items()
        )
        made = self.engine.make(tasks, len(missing), pipeline, self.stage)
        with closing(made):
            name = f"{self.stage}: {step.name}"
            for shard, report in progress(made, name, total=len(missing)):
                pipeline.finish_step(self.stage, shard, missing[shard], report)

    def _claim(
        self,
        missing: Sequence[str],
        fingerprints: Mapping[str, str],
        locks: ShardLocks,
        elsewhere: list[str],
    ) -> Iterator[ShardTask]:
        """Yield the tasks of units that no other process is making; lock each when it is taken."""
        for unit in missing:
            if not locks.take(unit):
                elsewhere.append(unit)
                continue
            if self.pipeline.is_finished(self.stage, unit, fingerprints[unit]):
                locks.release(unit)  # finished by another run after this one checked
                continue
            self.pipeline.forget(self.stage, [unit])
            ws = self.pipeline.workspace(fingerprints[unit])
            yield ShardTask(self.asset.function, ws, self._config, unit)

    def _make_whole(self, ws: Workspace) -> StageReport:
        """Make a stage that is not sharded, in this process."""
        if self.asset.tracked and not self._config.switched_off:
            with self.mlflow.run(self.pipeline, self.asset, self.context.run_id) as opened:
                tracker, self.url = opened
                return self.asset.run(ws, self.config, tracker)
        arguments = (NullTracker(),) if self.asset.tracked else ()
        return self.asset.run(ws, self.config, *arguments)

    def _forced(self) -> bool:
        """Return whether finished work must be repeated.

        DVC only starts a stage that is up to date when forced (`dvc repro --force`).
        """
        if self.context.run.tags.get(FORCE) == "true":
            return True
        bridge = self.pipeline.bridge
        return bridge.run_by_dvc(self.stage) and not bridge.changed([self.stage])

    def _finish(self, unit: str, fingerprint: str, report: StageReport) -> None:
        self.reports[unit] = report
        self.pipeline.finish(self.stage, unit, fingerprint, report)

    def _record(self, made: Sequence[str]) -> Versions | None:
        """Record in dvc.lock; None when the stage or its inputs are not complete."""
        pipeline, stage = self.pipeline, self.stage
        units = pipeline.units(stage)
        if pipeline.unfinished(stage, units):
            return None
        if set(made) != set(units) and pipeline.input_problem(stage, units):
            return None
        if not pipeline.bridge.run_by_dvc(stage) and not pipeline.bridge.changed([stage]):
            # What a killed run left goes too when going on from it gave what is recorded.
            pipeline.drop_work(stage)
            return pipeline.bridge.locked()[stage]
        versions = pipeline.bridge.record(stage)
        pipeline.drop_work(stage)
        return versions

    def _result(
        self, markers: dict[str, Marker], versions: Versions | None
    ) -> dg.MaterializeResult:
        shared = self._shared_metadata(versions)
        if not self.asset.sharded:
            shared |= unit_metadata(self.pipeline.root, markers[WHOLE])
        else:
            shared["shards"] = shard_table(markers)
            shown = {u: unit_metadata(self.pipeline.root, m) for u, m in markers.items()}
            if self.asset.partitioned:
                for unit, report in self.reports.items():
                    shown[unit]["made on"] = dg.MetadataValue.text(report.place)
                for unit, values in shown.items():
                    self.context.add_asset_metadata(values, partition_key=unit)
            else:
                shared |= next(iter(shown.values()))
        version = data_version(versions) if versions else content_version(markers)
        return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=shared)

    def _shared_metadata(self, versions: Versions | None) -> Metadata:
        values: Metadata = {
            "made in this run": dg.MetadataValue.int(len(self.reports)),
            "recorded in dvc.lock": dg.MetadataValue.bool(versions is not None),
        }
        values.update({f"dvc: {p}": dg.MetadataValue.text(v) for p, v in (versions or {}).items()})
        spec = self.context.assets_def.get_asset_spec(dg.AssetKey(self.stage))
        if lineage := spec.metadata.get(LINEAGE):
            # Dagster shows the lineage of materialized data, not of declarations.
            values[LINEAGE] = dg.MetadataValue.column_lineage(lineage)
        if self.url:
            values["MLflow run"] = dg.MetadataValue.url(self.url)
        if WHOLE in self.reports:
            report = self.reports[WHOLE]
            values.update({k: dg.MetadataValue.float(v) for k, v in report.timings.items()})
            for name, frame in report.tables.items():
                values[f"table: {name}"] = table(frame)
        return values

    def _say(
        self, markers: dict[str, Marker], outcomes: list[Outcome], recorded: bool, seconds: float
    ) -> None:
        counts = [sum(getattr(m, f"num_{key}") for m in markers.values()) for key in _COUNTS]
        passed = sum(outcome.passed for outcome in outcomes)
        text = (
            f"{counts[0]:>6} in {counts[1]:>6} out {counts[2]:>5} excluded "
            f"{passed:>3}/{len(outcomes)} checks {seconds:>6.1f} s"
        )
        if not self.reports:
            text += "  (unchanged)"
        if not recorded:
            text += "  not recorded: shards are missing"
        say(stage_line(self.stage, text))
        for outcome in outcomes:
            if not outcome.passed:
                say(f"  warning: {outcome.remark()}")


_COUNTS = ("in", "out", "excluded")
