"""Prompt embeddings, cached by text, and the weight of safety concepts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_KEPT = 256
"""Cached embeddings; about 300 kB each for SDXL in half precision."""


@dataclass(frozen=True)
class TextEmbedding:
    """The embedding of one text.

    Attributes:
        tokens: (1, 77, C).
        pooled: (1, P) of SDXL's second encoder, None for Stable Diffusion 1.5.
    """

    tokens: Tensor
    pooled: Tensor | None


class TextEncoder:
    """The text encoders of a pipeline."""

    def __init__(self, pipe: Any, device: torch.device, is_xl: bool) -> None:
        """Keep the pipeline.

        Args:
            pipe: the diffusers pipeline.
            device: where to compute.
            is_xl: whether it has two encoders.
        """
        self._pipe, self._device, self._is_xl = pipe, device, is_xl
        self._kept: OrderedDict[str, TextEmbedding] = OrderedDict()

    def encode(self, text: str) -> TextEmbedding:
        """Embed a text.

        Args:
            text: prompt or negative prompt; all beyond 77 tokens is cut off by the encoders.

        Returns:
            The embedding; independent of what was encoded before.
        """
        if text not in self._kept:
            self._kept[text] = self._compute(text)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]

    def encode_negative(self, text: str, concepts: str, weight: float) -> TextEmbedding:
        """Embed a negative prompt, its safety concepts weighted.

        The embedding moves along the line from the prompt without the concepts (weight 0) through
        the prompt with them (weight 1) and beyond.

        Args:
            text: the negative prompt.
            concepts: the part of it that is weighted; added when it is not in it.
            weight: the weight.

        Returns:
            The embedding; with weight 1 exactly that of the text.
        """
        if weight == 1.0:
            return self.encode(text)
        without = remove_concepts(text, concepts)
        base = self.encode(without)
        full = self.encode(text if without != text else f"{text}, {concepts}".lstrip(", "))
        tokens = base.tokens + weight * (full.tokens - base.tokens)
        if base.pooled is None or full.pooled is None:
            return TextEmbedding(tokens, None)
        return TextEmbedding(tokens, base.pooled + weight * (full.pooled - base.pooled))

    def count_tokens(self, text: str) -> int:
        """Return the length of a text in tokens, with start and end marks.

        Args:
            text: a prompt.

        Returns:
            Its number of tokens; beyond 77 the end is cut off.
        """
        return len(self._pipe.tokenizer(text, truncation=False).input_ids)

    def _compute(self, text: str) -> TextEmbedding:
        arguments = {
            "prompt": text,
            "device": self._device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": False,
        }
        with torch.inference_mode():
            if self._is_xl:
                tokens, _, pooled, _ = self._pipe.encode_prompt(**arguments)
                return TextEmbedding(tokens, pooled)
            tokens, _ = self._pipe.encode_prompt(**arguments)
            return TextEmbedding(tokens, None)


def remove_concepts(text: str, concepts: str) -> str:
    """Return a negative prompt without some of its comma-separated concepts.

    Args:
        text: the negative prompt.
        concepts: comma-separated; case and spaces do not count.

    Returns:
        What is left of the text.
    """
    unwanted = {part.strip().lower() for part in concepts.split(",")}
    kept = [part.strip() for part in text.split(",") if part.strip().lower() not in unwanted]
    return ", ".join(kept)
