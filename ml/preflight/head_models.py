"""The user's FLAME files, each read as the stage reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ml.flame.flame_file import head_model_from_flame, read_flame_file, read_masks
from ml.flame.index_files import read_index_files
from ml.flame.landmark_files import read_embedding, read_landmarks
from ml.flame.layer import FlameLayer
from ml.flame.open_head.source import PACKAGE, VERSION, data_folder
from ml.flame.params import NUM_PARAMETERS, ROTATION, SCALE
from ml.flame.rotation import FRONTAL_6D
from ml.preflight.needs import Forward, Need, Part, stated, timed
from ml.records.register import REGISTER, where_to_get
from ml.records.workspace import Workspace
from ml.stages.head_model import HeadModelConfig

_SITE = "get it from https://flame.is.tue.mpg.de (its licence applies)"
_LANDMARKS = (
    "get landmark_embedding.npy (DECA's or MICA's repository), or FLAME's "
    "flame_static_embedding.pkl and flame_dynamic_embedding.npy"
)
_LISTS = (
    "get it from https://github.com/KupynOrest/head_detector (head_detector/assets/flame_indices) "
    "or https://github.com/PinataFarms/DAD-3DHeads (model_training/model/static)"
)


def head_model_part(ws: Workspace, config: HeadModelConfig) -> list[Part]:
    """Return what the stage head_model needs.

    Args:
        ws: the workspace.
        config: section `head_model`.

    Returns:
        One part.
    """
    if config.source == "open":
        return [Part("head_model", "head_model", [Need("head_model.source", _open_head)])]
    if config.source != "flame" or config.flame_file is None or config.landmark_file is None:
        return []
    model, landmarks = ws.root / config.flame_file, ws.root / config.landmark_file
    contour = None if config.contour_file is None else ws.root / config.contour_file
    masks = None if config.masks_file is None else ws.root / config.masks_file
    lists = [ws.root / name for name in config.index_files]
    asset = config.source_asset
    of_release = where_to_get(asset) if asset in REGISTER else _SITE

    def flame() -> Mapping[str, str]:
        file = read_flame_file(model, asset, config.flame_sha256)
        return {**stated(asset, "head_model.source_asset"), "source": config.flame_file or "",
                "version": file.sha256, "release": file.release}  # fmt: skip

    needs = [Need("head_model.flame_file", flame, of_release)]
    others = [] if contour is None else [contour]
    needs.append(
        _need("landmark_file", landmarks, lambda: read_landmarks(landmarks, *others), _LANDMARKS)
    )
    if contour is not None:
        needs.append(_need("contour_file", contour, lambda: read_embedding([contour]), _LANDMARKS))
    if masks is not None:
        needs.append(_need("masks_file", masks, lambda: read_masks(masks), _SITE))
    for number, path in enumerate(lists):
        needs.append(
            _need(f"index_files[{number}]", path, partial(read_index_files, [path]), _LISTS)
        )

    def forward() -> Forward:
        made = head_model_from_flame(
            model, landmarks, masks, contour, lists, asset=asset, sha256=config.flame_sha256
        )
        layer = FlameLayer(made)
        frontal = torch.zeros(1, NUM_PARAMETERS)
        frontal[:, ROTATION], frontal[:, SCALE] = torch.tensor(FRONTAL_6D), 1000.0
        return timed(lambda: layer.vertices_in_image(frontal))

    return [Part("head_model", "head_model", needs, forward)]


def _open_head() -> Mapping[str, str]:
    data_folder()
    return {**stated("open-head", "head_model.source"), "source": PACKAGE, "version": VERSION}


def _need(key: str, path: Path, read: Callable[[], Any], get: str) -> Need:
    def check() -> Mapping[str, str]:
        read()
        return {"source": str(path.name)}

    return Need(f"head_model.{key}", check, get)
