"""The box detector with a thousandth of its weights."""

from ml.box_detection.rtdetr import RTDetrArchitecture

TINY_RTDETR = RTDetrArchitecture(
    input_size=64,
    stem_width=8,
    widths=(8, 16, 16),
    hidden_size=16,
    feed_forward_size=16,
    attention_heads=2,
    decoder_layers=1,
    num_queries=6,
    num_denoising=4,
    depths=(1, 1, 1),
)
