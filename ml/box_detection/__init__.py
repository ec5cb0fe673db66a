"""Head and face detectors: their protocols, the DETR family and its training, face detectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.box_detection.base import HeadBoxDetector


def load_box_detector(folder: Path, device: str = "cpu") -> HeadBoxDetector:
    """Load the detector that the stage `head_detector` made.

    Args:
        folder: the stage's folder, or a folder in the format of `save_pretrained`: RT-DETR, RT-DETR
            v2 or D-FINE.
        device: torch device; `auto` takes the GPU when there is one.

    Returns:
        The detector, in evaluation mode.

    Raises:
        FileNotFoundError: there is no model in the folder.
        ModelError: it is of an unsupported family.
    """
    # Imported here: transformers takes seconds to import.
    from ml.box_detection.pretrained import is_own_format, load_family_detector
    from ml.box_detection.rtdetr import RTDetrDetector
    from ml.records.models import choose_device

    device = str(choose_device(device))
    inner = Path(folder) / "model"
    found = inner if inner.is_dir() else Path(folder)
    if is_own_format(found) or not (found / "config.json").is_file():
        return RTDetrDetector.from_pretrained(found, device=device)
    return load_family_detector(found, device)
