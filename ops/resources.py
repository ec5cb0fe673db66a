"""Typed resources of ops; `dagster_project` implements them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from ml.preflight.report import Report
from ml.records.workspace import Workspace


class Dataset(dg.ConfigurableResource, ABC):
    """The project's data and values."""

    @abstractmethod
    def workspace(self) -> Workspace:
        """Return the workspace that holds the data."""

    @abstractmethod
    def values(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the effective values, section -> key -> value."""


class Judge(dg.ConfigurableResource, ABC):
    """Runs the checks of stages on the data on disk."""

    @abstractmethod
    def judge(self, stages: Sequence[str]) -> Iterator[tuple[dg.AssetCheckEvaluation, str]]:
        """Yield a check's evaluation, and the problem in words if it failed and is critical.

        Args:
            stages: which; none given: all that have finished data.
        """


class Preflight(dg.ConfigurableResource, ABC):
    """Verifies the external requirements of the active profile."""

    @abstractmethod
    def look(self, stages: Sequence[str]) -> Report:
        """Return all problems, and the duration of the models' forward passes.

        Args:
            stages: which; none given: all.
        """


class RecordedData(dg.ConfigurableResource, ABC):
    """What dvc.lock records."""

    @abstractmethod
    def unknown(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """Return materializations of recorded data that Dagster does not know."""


@dataclass(frozen=True)
class Removed:
    """Result of a takedown: ids of removed images, stages to rerun, remaining traces."""

    samples: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class CommandFailed(RuntimeError):
    """A command of the project ended with an error; the message is the end of its output."""


class FineTuning(dg.ConfigurableResource, ABC):
    """Trains the active profile's detector on the user's own boxes."""

    @abstractmethod
    def run(self, images: Path, boxes: Path, labels: Sequence[str]) -> Path:
        """Label the boxes with the profile's teacher, import, train and measure.

        Args:
            images: folder of the images.
            boxes: their boxes, a COCO detection file.
            labels: names of the categories that mean a head; none given: head.

        Returns:
            The benchmark's report.

        Raises:
            CommandFailed: a step of it failed.
        """


class Takedown(dg.ConfigurableResource, ABC):
    """Removes samples from the whole project."""

    @abstractmethod
    def remove(self, samples: Sequence[str], sources: Sequence[str]) -> Removed:
        """Remove images and all images of sources, and search for remaining traces.

        Raises:
            ValueError: an id is unknown.
        """


class ModelStore(dg.ConfigurableResource, ABC):
    """MLflow's store of runs and models."""

    @property
    @abstractmethod
    def tracking_uri(self) -> str:
        """Address of the store."""

    @property
    @abstractmethod
    def runs_folder(self) -> Path:
        """Folder of the store."""
