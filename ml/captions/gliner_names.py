"""Personal names found by GLiNER, a model that finds what its labels say."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from ml.captions.config import GlinerConfig
from ml.captions.names import Label, NameSpan
from ml.records.models import choose_device, require

LABELS: Final[dict[str, Label]] = {"first name": "first name", "last name": "last name"}
"""What the model is asked for (paper 3.1), and what a span is called."""


class GlinerNameDetector:
    """First and last names that GLiNER finds in a caption."""

    def __init__(self, config: GlinerConfig, root: Path) -> None:
        """Load the model.

        Args:
            config: the model's folder, threshold and device.
            root: the project folder, to which the model's path is relative.

        Raises:
            ModelError: the model is not named, not there, not the one meant, or cannot be loaded.
        """
        from gliner import GLiNER

        model = require(config.model, "captions.gliner.model", "gliner", root)
        self._model = model.load(GLiNER).to(choose_device(config.device)).eval()
        self._threshold = config.threshold

    def find(self, text: str) -> list[NameSpan]:
        """Find personal names.

        Args:
            text: a caption.

        Returns:
            Spans in order.
        """
        with torch.inference_mode():
            found = self._model.predict_entities(text, list(LABELS), threshold=self._threshold)
        spans = [
            NameSpan(int(e["start"]), int(e["end"]), LABELS[str(e["label"])], "gliner")
            for e in found
        ]
        return sorted(spans, key=lambda span: span.start)
