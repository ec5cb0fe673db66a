"""The published lists of vertices, so that published metrics are computed on published vertices.

VGGHeads' and DAD-3DHeads' code ship them as .npy files; as `head_indices.npy` and other names
denote different regions in the two, a region is identified by its number of vertices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml.flame.head_model import NUM_VERTICES
from ml.flame.safe_pickle import FlameFileError, load_pickle, objects, plain_array

Regions = dict[str, NDArray[np.int32]]

PUBLISHED: Final[Mapping[int, str]] = {
    2470: "head",
    2094: "face",
    3457: "face_with_ears",
    3669: "head_with_ears",
    1090: "eyeballs",
    445: "keypoints_445",
    191: "keypoints_191",
}
"""Number of vertices -> the region that the published list of that length is. The 3,457 are called
`head_w_ears.npy` by VGGHeads and `head.npy` by DAD, but without the back of the skull; the 3,669
are called `head_indices.npy` or `face_w_ears.npy` by DAD."""

_KEYPOINTS: Final = ("brows", "contour", "eyes", "forehead", "lips", "nose", "temples")
"""Files of a folder of keypoints; the 191 have no temples. `cheeks` belongs to neither."""
_INSIDE: Final = (
    ("keypoints_191", "keypoints_445", "face", "head", "head_with_ears"),
    ("face", "face_with_ears"),
)
"""Nested regions: inner -> outer."""


def read_index_files(paths: Sequence[Path]) -> Regions:
    """Read published lists of vertices.

    Args:
        paths: .npy files of vertex numbers, and folders of keypoints such as `keypoints_445`.

    Returns:
        Region name -> sorted int32 vertex numbers.

    Raises:
        FileNotFoundError: there is no such file or folder.
        FlameFileError: a file holds no vertex numbers, as many as no published list, or two lists
            contradict each other.
    """
    regions: Regions = {}
    sources: dict[str, Path] = {}
    for path in map(Path, paths):
        index = _read(path)
        name = PUBLISHED.get(len(index))
        if name is None:
            known = ", ".join(f"{count} ({region})" for count, region in PUBLISHED.items())
            raise FlameFileError(
                f"vertex list {path}: expected one of the published lists, {known} vertices, got "
                f"{len(index)}"
            )
        if name in regions and not np.array_equal(regions[name], index):
            raise FlameFileError(f"vertex lists {sources[name]} and {path}: both are {name}, with "
                                 "different vertices; give one of them")  # fmt: skip
        regions[name], sources[name] = index, path
    for chain in _INSIDE:
        for inner, outer in pairwise([name for name in chain if name in regions]):
            outside = np.setdiff1d(regions[inner], regions[outer])
            if len(outside):
                raise FlameFileError(
                    f"vertex lists {sources[inner]} and {sources[outer]}: {inner} must lie within "
                    f"{outer}, but {len(outside)} vertices do not, such as {outside[0]}"
                )
    return regions


def _read(path: Path) -> NDArray[np.int32]:
    if path.is_dir():
        files = [path / f"{name}.npy" for name in _KEYPOINTS if (path / f"{name}.npy").is_file()]
        if not files:
            raise FlameFileError(
                f"vertex list {path}: the folder has none of {', '.join(_KEYPOINTS)} (.npy)"
            )
    elif path.is_file():
        files = [path]
    else:
        raise FileNotFoundError(
            f"vertex list: no file {path}; VGGHeads' repository has them in "
            "head_detector/assets/flame_indices, DAD-3DHeads' in model_training/model/static"
        )
    lists = [part for file in files for part in _numbers(objects(load_pickle(file)), file)]
    index = np.unique(np.concatenate(lists)) if lists else np.zeros(0, np.int64)
    if len(index) and (index[0] < 0 or index[-1] >= NUM_VERTICES):
        raise FlameFileError(
            f"vertex list {path}: vertices must lie in 0..{NUM_VERTICES - 1}, got "
            f"{index[0]}..{index[-1]}"
        )
    return index.astype(np.int32)


def _numbers(value: Any, path: Path) -> list[NDArray]:
    """Return whole numbers in an array, a list, or a dictionary of either (part -> vertices)."""
    if isinstance(value, dict):
        return [part for inner in value.values() for part in _numbers(inner, path)]
    if isinstance(value, list | tuple):
        if all(isinstance(n, int) and not isinstance(n, bool) for n in value):
            return [np.array(value, np.int64)]
        return [part for inner in value for part in _numbers(inner, path)]
    array = np.atleast_1d(plain_array(value, f"vertex list {path}"))
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise FlameFileError(
            f"vertex list {path}: expected whole numbers in a row, got {array.dtype} of shape "
            f"{array.shape}"
        )
    return [array.astype(np.int64)]
