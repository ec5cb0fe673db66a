"""The asset register: what may be done with everything a run descends from.

None of this is legal advice; it is what the licences were found to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RegisteredAsset:
    """A model or a source that results may descend from.

    Attributes:
        name: how stages refer to it.
        licence: SPDX identifier, or the licence's own name.
        url: where it is published; empty for what this project makes itself.
        sha256: of the file, empty when the user brings it.
        commercial: whether results may be used commercially.
        redistributable: whether results may be given to others.
    """

    name: str
    licence: str
    url: str = ""
    sha256: str = ""
    commercial: bool = True
    redistributable: bool = True


class LicenceError(ValueError):
    """An export is forbidden by the licence of a parent; the message names it."""


_OWN = "Apache-2.0"
_HUB = "https://huggingface.co"
_RAIL_XL = "CreativeML Open RAIL++-M"
_SOURCES = (
    RegisteredAsset("own-pictures", "the user's own"),
    RegisteredAsset(
        "laion-face", "links under CC-BY-4.0, pictures of many owners", commercial=False
    ),
)
_POSE_MODELS = (
    RegisteredAsset("rt-detr-coco", "Apache-2.0", f"{_HUB}/PekingU/rtdetr_r50vd"),
    RegisteredAsset("vitpose", "Apache-2.0", f"{_HUB}/usyd-community/vitpose-base-simple"),
    RegisteredAsset(
        "yolo-nas-pose",
        "YOLO-NAS licence (non-commercial)",
        "https://github.com/Deci-AI/super-gradients",
        commercial=False,
    ),
)
_LANGUAGE_MODELS = (
    RegisteredAsset("blip-vqa", "BSD-3-Clause", f"{_HUB}/Salesforce/blip-vqa-base"),
    RegisteredAsset(
        "blip-captioning", "BSD-3-Clause", f"{_HUB}/Salesforce/blip-image-captioning-large"
    ),
    RegisteredAsset("gliner-large-v2", "Apache-2.0", f"{_HUB}/urchade/gliner_largev2"),
)
_DIFFUSION_MODELS = (
    RegisteredAsset("sdxl-base", _RAIL_XL, f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0"),
    # A merge of models that its makers do not name.
    RegisteredAsset("realvisxl-v4", _RAIL_XL, f"{_HUB}/SG161222/RealVisXL_V4.0", commercial=False),
    RegisteredAsset("sd-1.5", "CreativeML Open RAIL-M"),
    RegisteredAsset(
        "t2i-adapter-openpose-sdxl",
        "Apache-2.0",
        f"{_HUB}/TencentARC/t2i-adapter-openpose-sdxl-1.0",
    ),
    RegisteredAsset(
        "controlnet-openpose-sdxl", "Apache-2.0", f"{_HUB}/xinsir/controlnet-openpose-sdxl-1.0"
    ),
    RegisteredAsset(
        "controlnet-openpose-sd15",
        "CreativeML Open RAIL-M",
        f"{_HUB}/lllyasviel/control_v11p_sd15_openpose",
    ),
    # Published without a licence.
    RegisteredAsset(
        "head-mesh-controlnet-xl",
        "not stated",
        f"{_HUB}/okupyn/head-mesh-controlnet-xl",
        commercial=False,
        redistributable=False,
    ),
    # What `ml.generation.train_controlnet` makes descends from its SDXL.
    RegisteredAsset("pncc-controlnet", _RAIL_XL),
)
REGISTER: dict[str, RegisteredAsset] = {
    asset.name: asset
    for asset in (
        RegisteredAsset("procedural-head", _OWN),
        RegisteredAsset("renderer", _OWN),
        RegisteredAsset("sampled-poses", _OWN),
        RegisteredAsset("scene-grammar", _OWN),
        RegisteredAsset("rt-detr-from-scratch", _OWN),
        RegisteredAsset("crop-regressor", _OWN),
        # Randomly initialised models of the tests and of the rehearsal of a production profile.
        RegisteredAsset("random-weights", _OWN),
        *_SOURCES,
        *_POSE_MODELS,
        *_LANGUAGE_MODELS,
        *_DIFFUSION_MODELS,
        RegisteredAsset(
            "flame-2020",
            "MPI academic licence",
            url="https://flame.is.tue.mpg.de",
            commercial=False,
            redistributable=False,
        ),
        RegisteredAsset(
            "flame-2023-open", "CC-BY-4.0 with use bans", url="https://flame.is.tue.mpg.de"
        ),
        RegisteredAsset(
            "dad-3dnet",
            "CC-BY-NC-SA-4.0",
            url="https://github.com/PinataFarms/DAD-3DHeads",
            commercial=False,
        ),
    )
}


def lookup(name: str) -> RegisteredAsset:
    """The registered asset of a name.

    Raises:
        KeyError: nothing of that name is registered.
    """
    if name not in REGISTER:
        raise KeyError(f"asset register: {name!r} is unknown, expected one of {sorted(REGISTER)}")
    return REGISTER[name]


def check_export(parents: Sequence[str], commercial: bool = False) -> None:
    """Refuse to give away what a parent forbids.

    Args:
        parents: names of everything the export descends from.
        commercial: whether the export is for commercial use.

    Raises:
        LicenceError: a parent forbids it; every such parent is named with its licence.
        KeyError: a parent is not registered.
    """
    assets = [lookup(name) for name in parents]
    forbidding = [
        f"{a.name} ({a.licence})"
        for a in assets
        if not a.redistributable or (commercial and not a.commercial)
    ]
    if forbidding:
        use = "commercial export" if commercial else "export"
        raise LicenceError(f"{use} is forbidden by {', '.join(forbidding)}")
