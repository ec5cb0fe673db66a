"""A folder of tiny models, each built when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tests.tiny_models import diffusion, language, vision

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "sdxl": diffusion.build_sdxl,
    "t2i-adapter": diffusion.build_t2i_adapter,
    "sdxl-controlnet": diffusion.build_controlnet,
    "sd15": diffusion.build_sd15,
    "sd15-controlnet": diffusion.build_sd15_controlnet,
    "blip-vqa": vision.build_blip_vqa,
    "blip-captioner": vision.build_blip_captioner,
    "person-detector": vision.build_person_detector,
    "vitpose": vision.build_vitpose,
    "safety-checker": vision.build_safety_checker,
    "vit-classifier": vision.build_vit_classifier,
    "gliner": language.build_gliner,
    language.ENCODER: language.build_deberta,
}
"""Builder of each model by the name of its folder."""


class TinyModels:
    """Folders of tiny models under one root."""

    def __init__(self, root: Path) -> None:
        """Keep the root; nothing is built yet."""
        self.root = Path(root)

    def path(self, name: str) -> Path:
        """The folder of a model, built when it does not exist.

        Args:
            name: a key of `BUILDERS`.
        """
        folder = self.root / name
        # The tests' other processes build into the same root.
        with FileLock(self.root / f"{name}.lock"):
            if not folder.exists():
                BUILDERS[name](folder)
        return folder
