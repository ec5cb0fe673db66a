"""FDDB and WIDER FACE in their own layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from ml.benchmarks.fddb import ellipse_boxes
from ml.imaging.io import encode_jpeg


def write_image(path: Path, width: int = 200, height: int = 160, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)))


# name -> rows: half axes, angle, centre
FDDB_FACES = {
    "2002/08/11/big/img_591": [(40.0, 30.0, 1.265839, 90.0, 80.0)],
    "2002/08/26/big/img_265": [(30.0, 20.0, 0.0, 50.0, 50.0), (24.0, 18.0, 1.5, 140.0, 90.0)],
    "2003/01/17/big/img_7": [(20.0, 26.0, -0.4, 100.0, 70.0)],
}


def write_fddb(root: Path, faces=FDDB_FACES, images: bool = True) -> Path:
    """All images but the last in the first fold, the last in the second; the others are empty."""
    folds = root / "FDDB-folds"
    folds.mkdir(parents=True)
    names = list(faces)
    for fold in range(1, 11):
        lines = []
        for name in {1: names[:-1], 2: names[-1:]}.get(fold, []):
            lines += [name, str(len(faces[name]))]
            lines += [
                f"{a:.6f} {b:.6f} {t:.6f} {x:.6f} {y:.6f}  1" for a, b, t, x, y in faces[name]
            ]
            if images:
                write_image(root / "originalPics" / f"{name}.jpg")
        text = "".join(f"{line}\n" for line in lines)
        (folds / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(text)
    return root


def fddb_boxes(name: str, faces=FDDB_FACES) -> np.ndarray:
    return ellipse_boxes(np.array(faces[name]))


# event -> image -> rows x y w h, invalid; the last rows stand for no face
WIDER_FACES = {
    "0--Parade": {
        "0_Parade_marchingband_1_465": [
            (10, 10, 40, 50, 0),
            (100, 20, 30, 40, 0),
            (150, 100, 8, 9, 0),
        ],
        "0_Parade_Parade_0_317": [(20, 20, 60, 60, 1), (120, 60, 0, 1, 0)],
    },
    "2--Demonstration": {"2_Demonstration_Protesters_2_231": [(0, 0, 0, 0, 0)]},
}
# 1-based rows that each difficulty keeps
WIDER_KEPT = {
    "easy": {"0_Parade_marchingband_1_465": [1]},
    "medium": {"0_Parade_marchingband_1_465": [1, 2]},
    "hard": {"0_Parade_marchingband_1_465": [1, 2, 3]},
}


def _cell(items) -> np.ndarray:
    """A column of MATLAB cells."""
    cell = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        cell[row, 0] = item
    return cell


def write_wider(root: Path, faces=WIDER_FACES, kept=WIDER_KEPT, images=True, mat=True) -> Path:
    split, tools = root / "wider_face_split", root / "eval_tools" / "ground_truth"
    split.mkdir(parents=True)
    tools.mkdir(parents=True)
    text, lists = [], {"event_list": list(faces), "file_list": [], "face_bbx_list": []}
    labels = {n: [] for n in ("blur", "expression", "illumination", "invalid", "occlusion", "pose")}
    for event, files in faces.items():
        rows = [np.array(r, np.int32).reshape(-1, 5) for r in files.values()]
        lists["file_list"].append(_cell(list(files)))
        lists["face_bbx_list"].append(_cell([r[:, :4] for r in rows]))
        for name, column in labels.items():
            values = [r[:, 4:] if name == "invalid" else 0 * r[:, 4:] for r in rows]
            column.append(_cell([v.astype(np.uint8) for v in values]))
        for file, r in zip(files, rows, strict=True):
            empty = len(r) == 1 and not r.any()
            text += [f"{event}/{file}.jpg", "0" if empty else str(len(r))]
            text += [f"{x} {y} {w} {h} 0 0 0 {bad} 0 0 " for x, y, w, h, bad in r]
            if images:
                write_image(root / "WIDER_val" / "images" / event / f"{file}.jpg")
    (split / "wider_face_val_bbx_gt.txt").write_text("".join(f"{line}\n" for line in text))
    if mat:
        content = {name: _cell(column) for name, column in lists.items()}
        content |= {f"{name}_label_list": _cell(column) for name, column in labels.items()}
        savemat(split / "wider_face_val.mat", content)
        for difficulty, rows in kept.items():
            # indices as the published files have them: the smallest unsigned type that fits
            keep = [
                _cell(
                    [
                        np.array(rows.get(file, []), np.uint8 if event[0] == "0" else np.uint16)
                        .reshape(-1, 1)
                        for file in files
                    ]
                )
                for event, files in faces.items()
            ]  # fmt: skip
            savemat(tools / f"wider_{difficulty}_val.mat", {**content, "gt_list": _cell(keep)})
    return root
