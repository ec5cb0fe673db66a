"""BLIP through transformers: answers about an image, or a caption of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.poses.describers import DescriberConfig, compose, subject_of
from ml.records.models import choose_device, require


class _Blip:
    """What both share: loading, and generation without chance."""

    def __init__(self, config: DescriberConfig, root: Path, kind: str) -> None:
        import transformers

        self._config = config
        model = require(config.model, "poses.images.describer.model", config.backend, root)
        self._device = choose_device(config.device)
        self._model = model.load(getattr(transformers, kind)).to(self._device).eval()
        image_processor = model.load_part(transformers.AutoImageProcessor, backend="pil")
        tokenizer = model.load_part(transformers.AutoTokenizer)
        self._processor = transformers.BlipProcessor(image_processor, tokenizer)
        self.version = f"{model.name}@{model.version[:12]}"

    def _generate(self, part: Any, **inputs: Any) -> list[str]:
        """Return the texts that a part of the model generates, greedily."""
        tokens = part.generate(
            **inputs, max_new_tokens=self._config.max_new_tokens, num_beams=1, do_sample=False
        )
        texts: list[str] = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _process(self, **inputs: Any) -> Any:
        return self._processor(return_tensors="pt", padding=True, **inputs).to(self._device)


class BlipVqa(_Blip):
    """Asks neutral questions and composes the answers."""

    def __init__(self, config: DescriberConfig, root: Path) -> None:
        """Load the model.

        Args:
            config: model and questions.
            root: the project folder, to which the model's path is relative.
        """
        super().__init__(config, root, "BlipForQuestionAnswering")

    def describe(self, images_rgb: Sequence[np.ndarray], num_people: Sequence[int]) -> list[str]:
        """Describe some images by what the model answers.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.
            num_people: people whose pose was found in each.

        Returns:
            One description an image.
        """
        answers = self._answers(images_rgb, [question.ask for question in self._config.questions])
        return [
            compose(count, [texts[index] for texts in answers], self._config)
            for index, count in enumerate(num_people)
        ]

    @torch.inference_mode()
    def _answers(
        self, images_rgb: Sequence[np.ndarray], questions: Sequence[str]
    ) -> list[list[str]]:
        """Return for each question the answers about the images, which are encoded once.

        The steps are those of the model's own `generate`, which encodes the images for every
        question. Questions do not share a batch: the decoder would look at the padding of the
        shorter ones, so that an answer would depend on the other questions.
        """
        model = self._model
        seen = model.vision_model(**self._process(images=list(images_rgb))).last_hidden_state
        answers = []
        for question in questions:
            asked = model.text_encoder(
                **self._process(text=[question] * len(images_rgb)),
                encoder_hidden_states=seen,
                encoder_attention_mask=_nothing_masked(seen),
            ).last_hidden_state
            start = torch.full((len(asked), 1), model.decoder_start_token_id, device=asked.device)
            answers.append(
                self._generate(
                    model.text_decoder,
                    input_ids=start,
                    eos_token_id=model.config.text_config.sep_token_id,
                    pad_token_id=model.config.text_config.pad_token_id,
                    encoder_hidden_states=asked,
                    encoder_attention_mask=_nothing_masked(asked),
                )
            )
        return answers


def _nothing_masked(states: torch.Tensor) -> torch.Tensor:
    return torch.ones(states.shape[:-1], dtype=torch.long, device=states.device)


class BlipCaptioner(_Blip):
    """Writes a caption; it may name people, which the captions stage looks for."""

    def __init__(self, config: DescriberConfig, root: Path) -> None:
        """Load the model.

        Args:
            config: the model.
            root: the project folder, to which the model's path is relative.
        """
        super().__init__(config, root, "BlipForConditionalGeneration")

    def describe(self, images_rgb: Sequence[np.ndarray], num_people: Sequence[int]) -> list[str]:
        """Caption some images.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.
            num_people: people in each; the description of one the model has no words for.

        Returns:
            One caption an image.
        """
        with torch.inference_mode():
            texts = self._generate(self._model, **self._process(images=list(images_rgb)))
        return [
            text if len(text) > 2 else subject_of(count)
            for text, count in zip(texts, num_people, strict=True)
        ]
