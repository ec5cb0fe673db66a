"""Personal names found by GLiNER, a model that finds entities of given labels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from ml.captions.config import GlinerConfig
from ml.captions.names import Label, NameSpan
from ml.records.models import Model, ModelError, choose_device, require
from ml.records.progress import progress

LABELS: Final[dict[str, Label]] = {"first name": "first name", "last name": "last name"}
"""What the model is asked for (paper 3.1), and what a span is called."""

_CONFIG: Final = "gliner_config.json"
_FILES: Final = (_CONFIG, "pytorch_model.bin", "model.safetensors", "*.json", "*.txt", "*.model")
_ENCODER_FILES: Final = ("*.json", "*.txt", "*.model")
"""Of the encoder only tokenizer and configuration are needed: GLiNER's file has its weights."""


class GlinerNameDetector:
    """First and last names that GLiNER finds in a caption."""

    def __init__(self, config: GlinerConfig, root: Path) -> None:
        """Load the model.

        Args:
            config: the model's folder and its encoder's, threshold, batches and device.
            root: the project folder, to which the models' paths are relative.

        Raises:
            ModelError: a model is not named, not there, not the one meant, or cannot be loaded.
        """
        model = require(config.model, "captions.gliner.model", "gliner", root)
        encoder = config.encoder.resolve(root) if config.encoder is not None else None
        with _whole_folder(model, encoder) as folder:
            network = _load(model, folder)
        self._model = network.to(choose_device(config.device)).eval()
        self._threshold, self._batch_size = config.threshold, config.batch_size
        parts = [model] if encoder is None else [model, encoder]
        self.version = " on ".join(f"{part.name}@{part.version[:12]}" for part in parts)

    def find(self, text: str) -> list[NameSpan]:
        """Find personal names.

        Args:
            text: a caption.

        Returns:
            Spans in order.
        """
        return self.find_all([text])[0]

    def find_all(self, texts: Sequence[str]) -> list[list[NameSpan]]:
        """Find personal names in each of many texts, some in one pass of the network.

        Args:
            texts: captions.

        Returns:
            Spans of each in order.
        """
        found: list[list[NameSpan]] = []
        for start in progress(range(0, len(texts), self._batch_size), "names in captions"):
            batch = list(texts[start : start + self._batch_size])
            with torch.inference_mode():
                entities = self._model.inference(
                    batch, list(LABELS), threshold=self._threshold, batch_size=len(batch)
                )
            found += [_spans(of_text) for of_text in entities]
        return found


def _spans(entities: Sequence[Mapping[str, Any]]) -> list[NameSpan]:
    spans = [
        NameSpan(int(e["start"]), int(e["end"]), LABELS[str(e["label"])], "gliner")
        for e in entities
    ]
    return sorted(spans, key=lambda span: span.start)


def _load(model: Model, folder: Path) -> Any:
    from gliner import GLiNER

    try:
        return GLiNER.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model '{model.name}': {model.location} cannot be loaded as GLiNER: {error}"
        ) from error


@contextmanager
def _whole_folder(model: Model, encoder: Model | None) -> Iterator[Path]:
    """Build a folder of GLiNER's files whose configuration names the encoder's local folder.

    The library takes tokenizer and encoder configuration from the repository that the
    configuration names, at whatever commit is the newest; here it is given the folder instead.
    """
    folder = model.folder(_FILES)
    if not (folder / _CONFIG).is_file():
        raise ModelError(
            f"model '{model.name}': {model.location} cannot be loaded as GLiNER: it has no "
            f"{_CONFIG}"
        )
    config = json.loads((folder / _CONFIG).read_text("utf-8"))
    if encoder is None:
        if not (config.get("encoder_config") and (folder / "tokenizer_config.json").is_file()):
            raise ModelError(
                f"captions.gliner.encoder: the folder of '{model.name}' has no tokenizer and no "
                f"encoder configuration; name its base model, "
                f"{config.get('model_name')!r}, as {{path or hub_id and revision, asset}}"
            )
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vggheads-gliner-") as temporary:
        whole = Path(temporary)
        for path in folder.iterdir():
            if path.name != _CONFIG:
                (whole / path.name).symlink_to(path.resolve())
        config["model_name"] = str(encoder.folder(_ENCODER_FILES).resolve())
        (whole / _CONFIG).write_text(json.dumps(config), "utf-8")
        yield whole
