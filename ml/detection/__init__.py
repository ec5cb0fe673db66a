"""Head and face detectors: their protocols, the RT-DETR head detector and its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.detection.rtdetr import RTDetrDetector


def load_head_detector(folder: Path, device: str = "cpu") -> RTDetrDetector:
    """Load the detector that the stage `head_detector` made.

    Args:
        folder: the stage's folder, or a folder in the format of `save_pretrained`.
        device: torch device.

    Returns:
        The detector, in evaluation mode.

    Raises:
        FileNotFoundError: there is no model in the folder.
    """
    # Imported here: transformers takes seconds to import.
    from ml.detection.rtdetr import RTDetrDetector

    inner = Path(folder) / "model"
    return RTDetrDetector.from_pretrained(inner if inner.is_dir() else Path(folder), device=device)
