"""A GLiNER that knows the names of its four training sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.tiny_models.vision import WORDS, bert_vocabulary

LABELS = ("first name", "last name")
SENTENCES = (
    ("a photo of anna walking", {"anna": "first name"}),
    ("anna smith with a man in the park", {"anna": "first name", "smith": "last name"}),
    ("a man sitting in the office", {}),
    ("two people standing on the street", {}),
)
"""Training texts and their names."""


def build_gliner(folder: Path, steps: int = 100) -> Path:
    """Train a tiny GLiNER on `SENTENCES` for a few seconds.

    Args:
        folder: where it goes.
        steps: training steps.
    """
    from gliner import GLiNER, GLiNERConfig
    from transformers import BertConfig, BertTokenizer

    torch.manual_seed(11)
    tokenizer_folder = folder / "tokenizer-source"
    tokenizer = BertTokenizer(vocab=str(bert_vocabulary(tokenizer_folder)))
    tokenizer.save_pretrained(tokenizer_folder)
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    config = GLiNERConfig(
        model_name=str(tokenizer_folder),
        encoder_config=encoder.to_dict(),
        hidden_size=32,
        max_width=4,
        max_len=64,
        dropout=0.0,
    )
    model = GLiNER.from_config(config, backbone_from_pretrained=False)
    _train(model, steps)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def _train(model, steps: int) -> None:
    collator = model.data_collator_class(
        model.config, data_processor=model.data_processor, prepare_labels=True
    )
    examples = 2 * [_example(text, names) for text, names in SENTENCES]
    examples += [_example(text, {}) for text in _nameless(6)]
    batch = collator(examples)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def _nameless(count: int) -> list[str]:
    """Texts of random words and letters, as untrained captioners write them."""
    rng = np.random.default_rng(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]

    def word() -> str:
        if rng.random() < 0.5:
            return str(rng.choice(WORDS))
        return "".join(rng.choice(letters, int(rng.integers(1, 9))))

    return [
        f"{rng.choice(['a person', 'two people'])} , " + " ".join(word() for _ in range(8))
        for _ in range(count)
    ]


def _example(text: str, names: dict[str, str]) -> dict:
    words = text.split()
    spans = [[words.index(word), words.index(word), label] for word, label in names.items()]
    return {"tokenized_text": words, "ner": spans, "ner_labels": list(LABELS)}
