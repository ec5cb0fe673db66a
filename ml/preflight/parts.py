"""What each stage of a profile needs from outside, tried with the calls that the stage makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ml.preflight.needs import Forward, Need, Part, model_need, stated, timed
from ml.records.config import StageConfig
from ml.records.models import choose_device
from ml.records.register import OWN_IMAGES, where_to_get
from ml.records.workspace import Workspace

if TYPE_CHECKING:
    from ml.annotation.backends import RegressorConfig
    from ml.captions.config import CaptionsConfig
    from ml.filtering.identity import IdentityConfig
    from ml.poses.config import PosesConfig
    from ml.stages.annotations import AnnotationsConfig
    from ml.stages.filtered_dataset import FilteredDatasetConfig
    from ml.stages.head_detector import HeadDetectorConfig
    from ml.stages.labels import LabelsConfig
    from ml.stages.released_dataset import ReleasedDatasetConfig
    from ml.stages.trained_model import TrainedModelConfig

_SIDE: Final = 256
"""Side of the image that models look at here, px."""


def image_to_look_at(side: int = _SIDE) -> np.ndarray:
    """Return an image with structure: (side, side, 3) uint8 RGB, always the same.

    Args:
        side: its side, px.
    """
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    waves = np.stack([np.sin(12 * x + 5 * y), np.cos(9 * y), np.sin(20 * x * y)], axis=-1)
    return (127.5 + 127.5 * waves).astype(np.uint8)


def poses(ws: Workspace, config: PosesConfig) -> list[Part]:
    """Return the source images, the estimator of poses and the describer."""
    if config.source == "sampled":
        return []
    from ml.poses.backends import DESCRIBERS, ESTIMATORS
    from ml.poses.sources import source_images

    source = config.images

    def images() -> Mapping[str, str]:
        for index in {0, ws.num_shards - 1}:
            next(source_images(source, config.source, ws.root, index, ws.shard_size), None)
        return {**stated(source.asset, "poses.images.asset"), "source": source.path}

    where = "poses.images"
    estimator, describer = source.estimator, source.describer
    # So low that there are people to look at: the pose model computes too.
    eager = estimator.model_copy(update={"threshold": 1e-6})

    def find() -> Forward:
        model = ESTIMATORS[estimator.backend](eager, ws.root)
        try:
            return timed(lambda: model.estimate([image_to_look_at()]))
        finally:
            close = getattr(model, "close", None)
            if close is not None:
                close()

    def describe() -> Forward:
        model = DESCRIBERS[describer.backend](describer, ws.root)
        return timed(lambda: model.describe([image_to_look_at()], [1]))

    place = f"{where}.estimator"
    of_estimator = [
        *model_need(
            f"{place}.person_detector", estimator.person_detector, ws.root, estimator.device
        ),
        *model_need(f"{place}.pose_model", estimator.pose_model, ws.root, estimator.device),
    ]
    of_describer = model_need(
        f"{where}.describer.model", describer.model, ws.root, describer.device
    )
    return [
        Part("poses", where, [Need(f"{where}.path", images, where_to_get(source.asset))]),
        Part("poses", place, of_estimator, find, estimator.device),
        Part("poses", f"{where}.describer", of_describer, describe, describer.device),
    ]


def captions(ws: Workspace, config: CaptionsConfig) -> list[Part]:
    """Return the model that finds names."""
    if config.name_detector != "gliner":
        return []
    from ml.stages.captions import load_name_detector

    gliner = config.gliner
    needs = [
        *model_need("captions.gliner.model", gliner.model, ws.root, gliner.device),
        *model_need("captions.gliner.encoder", gliner.encoder, ws.root, gliner.device),
    ]

    def forward() -> Forward:
        detector = load_name_detector(config, ws.root)
        return timed(lambda: detector.find("a photo of two people in a park"))

    return [Part("captions", "captions.gliner", needs, forward, gliner.device)]


def labels(ws: Workspace, config: LabelsConfig) -> list[Part]:
    """Return the labelling tool's file."""
    if config.source != "file":
        return []
    path = ws.root / config.file

    def check() -> Mapping[str, str]:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if config.file_sha256 and found != config.file_sha256:
            raise ValueError(f"{path} has sha256 {found}, expected {config.file_sha256}")
        json.loads(data)
        return {"source": config.file, "version": found}

    get = (
        "once the images are made, `vggheads label-export` writes some to label, and `vggheads "
        "label-import` takes over what the tool hands back"
    )
    return [Part("labels", "labels", [Need("labels.file", check, get)])]


def head_detector(ws: Workspace, config: HeadDetectorConfig) -> list[Part]:
    """Return the checkpoint that is trained further, or taken as it is."""
    if config.source == "scratch":
        return []
    from ml.stages.head_detector import load_checkpoint

    place = "head_detector.pretrained"
    side = config.pretrained.input_size

    def forward() -> Forward:
        network = load_checkpoint(ws, config).eval()
        pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            return timed(lambda: network(pixels))

    needs = model_need(f"{place}.model", config.pretrained.model, ws.root)
    return [Part("head_detector", place, needs, forward), *_accelerator("head_detector", config)]


def annotating(ws: Workspace, config: AnnotationsConfig) -> list[Part]:
    """Return a third-party regressor."""
    regressor: RegressorConfig = config.regressor
    if regressor.backend == "own":
        return []
    from ml.annotation.backends import load_dad, load_embedding, load_predictor

    def forward() -> Forward:
        call: Callable[[torch.Tensor], torch.Tensor]
        if regressor.backend == "dad":
            dad = load_dad(ws.root, regressor, config.device)
            side, call = dad.crop_size, dad.predict
        else:
            # The head model, and so the fit, is a stage's work that need not be done yet.
            load_embedding(ws.root, regressor.landmarks)
            predictor = load_predictor(ws.root, regressor, config.device)
            side, call = predictor.crop_size, predictor.find
        crops = torch.from_numpy(image_to_look_at(side)).permute(2, 0, 1)[None].contiguous()
        return timed(lambda: call(crops))

    place = "annotations.regressor"
    needs = model_need(f"{place}.model", regressor.model, ws.root, config.device)
    if regressor.backend == "landmarks":
        where = f"{place}.landmarks.embedding"
        needs += model_need(where, regressor.landmarks.embedding, ws.root)
    return [Part("annotations", place, needs, forward, config.device)]


def filtered_dataset(ws: Workspace, config: FilteredDatasetConfig) -> list[Part]:
    """Return face detector, safety checkers and the identity index."""
    from ml.box_detection.faces import build_face_detector
    from ml.filtering.safety import ClipSafetyChecker, UnsafeClassifier

    stage, safety = "filtered_dataset", config.safety
    parts = []
    look = image_to_look_at()
    if config.face_check.model is not None:
        place = f"{stage}.face_check"

        def detect() -> Forward:
            detector = build_face_detector(config.face_check, ws.root, config.device)
            return timed(lambda: detector.detect_faces([look])) if detector else Forward(0.0)

        needs = model_need(f"{place}.model", config.face_check.model, ws.root, config.device)
        parts.append(Part(stage, place, needs, detect, config.device))
    screens: tuple[tuple[str, Any, Callable[..., Any]], ...] = (
        ("clip", safety.clip.model, ClipSafetyChecker),
        ("classifier", safety.classifier.model, UnsafeClassifier),
    )
    for name, ref, kind in screens:
        if ref is None:
            continue
        place = f"{stage}.safety.{name}"

        def screen(ref: Any = ref, kind: Callable[..., Any] = kind) -> Forward:
            model = kind(ref.resolve(ws.root), safety)
            return timed(lambda: model.screen([look]))

        needs = model_need(f"{place}.model", ref, ws.root, safety.device)
        parts.append(Part(stage, place, needs, screen, safety.device))
    return [*parts, *_identity(ws, config.identity, config.device)]


def _identity(ws: Workspace, config: IdentityConfig, device: str) -> list[Part]:
    if not config.index:
        return []
    from ml.filtering.identity import (
        IdentityIndex,
        IdentityScreen,
        load_face_reader,
        threshold_of,
    )

    place = "filtered_dataset.identity"

    def index() -> Mapping[str, str]:
        found = IdentityIndex.load(ws.root / config.index)
        known = stated(config.source_asset, "filtered_dataset.identity.source_asset")
        return {**known, "source": config.index, "version": found.embedder}

    def forward() -> Forward:
        reader = load_face_reader(config, ws.root, device)
        found = IdentityIndex.load(ws.root / config.index)
        # The screen refuses an index of another embedder.
        model = IdentityScreen(reader, found, threshold_of(config, found))
        aligned = image_to_look_at(112)
        return timed(lambda: (model.screen([image_to_look_at()]), reader.embedder.embed([aligned])))

    needs = [
        Need(f"{place}.index", index),
        *model_need(f"{place}.detector_model", config.detector_model, ws.root, device),
        *model_need(f"{place}.embedder_model", config.embedder_model, ws.root, device),
    ]
    return [Part("filtered_dataset", place, needs, forward, device)]


def released_dataset(ws: Workspace, config: ReleasedDatasetConfig) -> list[Part]:
    """Return what is looked into of the release: each of its folders and tars."""
    from ml.release.archives import glance

    def check(source: str) -> Mapping[str, str]:
        known = stated(config.source_asset, "released_dataset.source_asset")
        return {**known, "source": source, "first file": glance(ws.root / source)}

    get = where_to_get(str(config.source_asset))
    if config.source_asset == OWN_IMAGES:
        get = "make it of your images and boxes with `vggheads fine-tune IMAGES BOXES`"
    place = "released_dataset.sources"
    needs = [
        Need(f"{place}[{number}]", partial(check, source), get)
        for number, source in enumerate(config.sources)
    ]
    return [Part("released_dataset", place, needs)]


def trained_model(
    ws: Workspace, config: TrainedModelConfig, stage: str = "trained_model"
) -> list[Part]:
    """Return the weights that training starts from."""
    parts = _accelerator(stage, config)
    if config.initial_weights is None and config.encoder_folder is None:
        return parts
    from ml.detector_training.initialisation import build_network

    own = config.model_copy(update={"initial_encoder": None})

    def there(path: Path) -> Mapping[str, str]:
        if not (ws.root / path).exists():
            raise FileNotFoundError(f"nothing at {ws.root / path}")
        return {"source": str(path)}

    def weights(path: Path) -> Mapping[str, str]:
        return {**there(path), **stated(config.source_asset, f"{stage}.source_asset")}

    def forward() -> Forward:
        network = build_network(ws, own).eval()
        side = config.loader.image_size
        pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            return timed(lambda: network(pixels))

    needs = []
    if config.initial_weights is not None:
        path = config.initial_weights
        asset = asset_of_weights(path.name)
        needs.append(Need(f"{stage}.initial_weights", lambda: weights(path), where_to_get(asset)))
    if config.encoder_folder is not None:
        folder = config.encoder_folder
        needs.append(Need(f"{stage}.encoder_folder", lambda: there(folder)))
    return [*parts, Part(stage, f"{stage}.initial_weights", needs, forward)]


def asset_of_weights(name: str) -> str:
    """Return the registered asset that initial weights most likely are, by their file's name.

    Args:
        name: of the file.
    """
    return "yolo-nas-coco" if "yolo" in name.lower() else "vggheads-release"


def _accelerator(stage: str, config: Any) -> list[Part]:
    """Return the device that a training asks for, where it leaves no choice."""
    kind = config.fit.accelerator
    if kind not in ("gpu", "cuda"):
        return []

    def check() -> Mapping[str, str]:
        choose_device("cuda")
        wanted, there = int(config.fit.devices), torch.cuda.device_count()
        if there < wanted:
            raise ValueError(f"{wanted} GPUs are asked for, {there} are here")
        return {"source": kind}

    return [Part(stage, f"{stage}.fit", [Need(f"{stage}.fit.accelerator", check)])]


def parts_of(ws: Workspace, configs: Mapping[str, StageConfig]) -> list[Part]:
    """Return the parts of all given stages that need something from outside.

    Args:
        ws: the workspace.
        configs: stage -> its configuration, in the order of the stages.

    Returns:
        The parts, in that order; empty for a profile that makes everything itself.
    """
    from ml.preflight.head_models import head_model_part
    from ml.preflight.images import images

    makers: dict[str, Callable[[Workspace, Any], list[Part]]] = {
        "head_model": head_model_part,
        "poses": poses,
        "captions": captions,
        "images": lambda ws, config: images(ws, config, configs),
        "labels": labels,
        "head_detector": head_detector,
        "annotations": annotating,
        "filtered_dataset": filtered_dataset,
        "released_dataset": released_dataset,
        "trained_model": trained_model,
        "released_model": lambda ws, config: trained_model(ws, config, "released_model"),
    }
    return [
        part
        for stage, config in configs.items()
        if stage in makers and not config.switched_off
        for part in makers[stage](ws, config)
    ]
