"""Weighted negative prompts, and the cache of embeddings."""

from __future__ import annotations

import pytest
import torch

from ml.generation.diffusion.features import FeatureCache
from ml.generation.diffusion.texts import TextEncoder, remove_concepts


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("low quality, nsfw, nudity", "low quality"),
        ("NSFW,low quality ,  Nudity", "low quality"),
        ("nsfw", ""),
        ("nsfw hat, sketch", "nsfw hat, sketch"),
    ],
)
def test_concepts_are_removed_whole(text, rest):
    assert remove_concepts(text, "nsfw, nudity, violence") == rest


class LetterPipe:
    """Embeds a text as its length and its number of commas; counts its calls."""

    def __init__(self):
        self.calls = 0

    def encode_prompt(self, prompt, **_):
        self.calls += 1
        vector = torch.tensor([[float(len(prompt)), float(prompt.count(","))]])
        return vector[None], None, vector, None


def test_the_weight_moves_along_the_line_between_both_prompts():
    pipe = LetterPipe()
    encoder = TextEncoder(pipe, torch.device("cpu"), is_xl=True)
    text, concepts = "sketch, nsfw", "nsfw"
    rest, full = encoder.encode("sketch"), encoder.encode(text)
    for weight in (0.0, 0.5, 1.0, 2.0):
        found = encoder.encode_negative(text, concepts, weight)
        expected = rest.tokens + weight * (full.tokens - rest.tokens)
        torch.testing.assert_close(found.tokens, expected)
        torch.testing.assert_close(found.pooled, expected[0])
    assert pipe.calls == 2


def test_concepts_missing_from_the_prompt_are_added():
    encoder = TextEncoder(LetterPipe(), torch.device("cpu"), is_xl=True)
    found = encoder.encode_negative("sketch", "nsfw, nudity", 2.0)
    rest, full = encoder.encode("sketch"), encoder.encode("sketch, nsfw, nudity")
    torch.testing.assert_close(found.tokens, 2 * full.tokens - rest.tokens)


def test_features_are_kept_for_the_last_conditions():
    seen = []

    def forward(x):
        seen.append(float(x.mean()))
        return [x * 2, x * 3]

    cache = FeatureCache(forward, kept=2)
    red, green, blue = (torch.full((3, 2, 2), value) for value in (0.1, 0.2, 0.3))
    levels = cache(torch.stack([red, green, red]))
    torch.testing.assert_close(levels[0], 2 * torch.stack([red, green, red]))
    torch.testing.assert_close(levels[1], 3 * torch.stack([red, green, red]))
    assert cache.computed == 2
    cache(torch.stack([blue, red]))
    assert cache.computed == 3
    cache(green[None])
    assert cache.computed == 4
