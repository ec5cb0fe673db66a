"""A GLiNER that knows the names of its four training sentences."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch

from tests.tiny_models.vision import WORDS

ENCODER = "deberta-v3"
"""Folder of the encoder, beside GLiNER's."""
_DEBERTA = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 32,
    "intermediate_size": 64,
    "initializer_range": 0.1,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "vocab_size": 256,
}
LABELS = ("first name", "last name")
SENTENCES = (
    ("a photo of anna walking", {"anna": "first name"}),
    ("anna smith with a man in the park", {"anna": "first name", "smith": "last name"}),
    ("a man sitting in the office", {}),
    ("two people standing on the street", {}),
)
"""Training texts and their names."""


def build_deberta(folder: Path) -> Path:
    """Tokenizer and configuration of a DeBERTa-v3, in the files of its public folder.

    The public folder also has the encoder's weights, which nobody asks for.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    # The names often enough to be pieces of their own: a word is known by its first piece.
    texts = [" ".join(WORDS), "abcdefghijklmnopqrstuvwxyz", 20 * "anna smith "]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(5 * texts), model_writer=model, vocab_size=200, num_threads=1,
        hard_vocab_limit=False, minloglevel=2,
        pad_id=0, pad_piece="[PAD]", bos_id=1, bos_piece="[CLS]",
        eos_id=2, eos_piece="[SEP]", unk_id=3, unk_piece="[UNK]",
    )  # fmt: skip
    (folder / "spm.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (folder / "config.json").write_text(json.dumps(_DEBERTA))
    return folder


def build_gliner(folder: Path, steps: int = 120) -> Path:
    """Train a tiny GLiNER on `SENTENCES` for a few seconds; its encoder's folder lies beside it.

    Args:
        folder: where the two files of the public folder go.
        steps: training steps.
    """
    from gliner import GLiNER, GLiNERConfig

    encoder = folder.parent / ENCODER
    if not encoder.exists():
        build_deberta(encoder)
    torch.manual_seed(11)
    config = GLiNERConfig(
        model_name=str(encoder), hidden_size=32, max_width=4, max_len=64, dropout=0.0
    )
    model = GLiNER.from_config(config, backbone_from_pretrained=False)
    _train(model, steps)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.model.state_dict(), folder / "pytorch_model.bin")
    published = {
        "model_name": "microsoft/deberta-v3-large",
        "name": "span level gliner",
        "max_width": 4,
        "hidden_size": 32,
        "dropout": 0.0,
        "span_mode": config.span_mode,
        "max_len": 64,
    }
    (folder / "gliner_config.json").write_text(json.dumps(published))
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
