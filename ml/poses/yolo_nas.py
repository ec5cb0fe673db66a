"""YOLO-NAS-Pose of super-gradients, in a process and an environment of its own.

super-gradients is unmaintained and its pins fit no current environment, so `make super-gradients`
gives it one, and this module talks to `yolo_nas_worker.py` there: the sizes of some images as a
line of JSON and their bytes one way, the people of each as a line of JSON the other.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ml.poses.config import EstimatorConfig
from ml.poses.estimator import FoundPeople
from ml.poses.skeleton import NUM_KEYPOINTS
from ml.records.models import ModelError

WORKER = Path(__file__).with_name("yolo_nas_worker.py")


class WorkerError(RuntimeError):
    """The process with super-gradients did not start, failed or ended."""


class YoloNasPoseEstimator:
    """The client's side; the process starts with the first images."""

    def __init__(self, config: EstimatorConfig, root: Path) -> None:
        """Find the checkpoint and the interpreter.

        Args:
            config: checkpoint, architecture, interpreter and threshold.
            root: the project folder, to which paths are relative.

        Raises:
            ModelError: the checkpoint is not named, not there or not the one meant, or there is
                no environment with super-gradients.
        """
        if config.pose_model is None:
            raise ModelError(
                "poses.images.estimator.pose_model: yolo-nas-pose needs a checkpoint that you "
                "bring, {path, sha256, asset}; its public hosts no longer answer"
            )
        self._config = config
        self._model = config.pose_model.resolve(root)
        self._python = Path(root) / config.worker_python
        if not self._python.exists():
            raise ModelError(
                f"poses.images.estimator.worker_python: no interpreter at {self._python}; "
                "`make super-gradients` sets its environment up"
            )
        self.version = f"{self._model.name}@{self._model.version[:12]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def estimate(self, images_rgb: Sequence[np.ndarray]) -> list[FoundPeople]:
        """Find the people of some images, in one pass of the network.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image its people, most certain first.

        Raises:
            WorkerError: the worker fails; the end of what it wrote is in the message.
        """
        if not images_rgb:
            return []
        process = self._process or self._start()
        if process.stdin is None:
            raise WorkerError("yolo-nas-pose: the worker has no input")
        header = json.dumps({"sizes": [image.shape[:2] for image in images_rgb]})
        try:
            process.stdin.write(header.encode() + b"\n")
            for image in images_rgb:
                process.stdin.write(np.ascontiguousarray(image, np.uint8).tobytes())
            process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(f"yolo-nas-pose: the worker ended; {self._tail()}") from error
        return [_people(self._answer()) for _ in images_rgb]

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        command = [
            str(self._python),
            str(WORKER),
            "--architecture",
            self._config.architecture,
            "--checkpoint",
            self._model.location,
            "--threshold",
            str(self._config.threshold),
            "--device",
            self._config.device,
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        self._answer()  # says that the model is loaded
        return self._process

    def _answer(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise WorkerError("yolo-nas-pose: the worker does not run")
        line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise WorkerError(
                f"yolo-nas-pose: expected a line of JSON from the worker, got {line[:80]!r}; "
                f"{self._tail()}"
            ) from error
        if not isinstance(answer, dict) or "error" in answer:
            raise WorkerError(f"yolo-nas-pose: the worker says: {answer}")
        return answer

    def _tail(self) -> str:
        """Return the end of what the worker wrote for people."""
        if self._log is None:
            return "it wrote nothing"
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                return "it still runs"
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f"it wrote: {text[-600:]}" if text else "it wrote nothing"


def _people(answer: dict[str, Any]) -> FoundPeople:
    keypoints = np.asarray(answer["keypoints"], np.float32).reshape(-1, NUM_KEYPOINTS, 3)
    return FoundPeople(keypoints, np.asarray(answer["scores"], np.float32))
