"""What ops ask of the project, as typed resources; `dagster_project` provides them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from ml.preflight.report import Report
from ml.records.workspace import Workspace


class Dataset(dg.ConfigurableResource):
    """The project's data and values."""

    def workspace(self) -> Workspace:
        """Return the workspace that holds the data."""
        raise NotImplementedError

    def values(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the effective values, section -> key -> value."""
        raise NotImplementedError


class Judge(dg.ConfigurableResource):
    """Runs the checks of stages on the data on disk."""

    def judge(self, stages: Sequence[str]) -> Iterator[tuple[dg.AssetCheckEvaluation, str]]:
        """Yield a check's evaluation, and the problem in words if it failed and is critical.

        Args:
            stages: which; none given: all that have finished data.
        """
        raise NotImplementedError


class Preflight(dg.ConfigurableResource):
    """Looks at what the active profile needs from outside."""

    def look(self, stages: Sequence[str]) -> Report:
        """Return all problems, and what the models' forwards took.

        Args:
            stages: which; none given: all.
        """
        raise NotImplementedError


class RecordedData(dg.ConfigurableResource):
    """What dvc.lock records."""

    def unknown(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """Return materializations of recorded data that Dagster does not know."""
        raise NotImplementedError


@dataclass(frozen=True)
class Removed:
    """What a takedown did: ids of images that are gone, stages to make again, what is left."""

    samples: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Takedown(dg.ConfigurableResource):
    """Removes samples from the whole project."""

    def remove(self, samples: Sequence[str], sources: Sequence[str]) -> Removed:
        """Remove images, and all images of sources, and search for what is left.

        Raises:
            ValueError: an id is unknown.
        """
        raise NotImplementedError


class ModelStore(dg.ConfigurableResource):
    """MLflow's store of runs and models."""

    @property
    def tracking_uri(self) -> str:
        """Address of the store."""
        raise NotImplementedError

    @property
    def runs_folder(self) -> Path:
        """Folder of the store."""
        raise NotImplementedError
