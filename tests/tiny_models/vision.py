"""BLIP, a person detector, ViTPose, a safety checker and an image classifier, all tiny."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

_TEXT = (
    "a an the of in on and with what is are who how people person man woman doing wearing standing "
    "sitting walking running talking smiling park street office kitchen beach studio forest shirt "
    "dress jacket hat sunny dark bright cloudy day night light image photo taken where place "
    "clothes colour weather many one two three red blue green black white yes no ? . ,"
)
WORDS = tuple(_TEXT.split())
"""Vocabulary of the tiny text models; single letters stand for everything else."""


def bert_vocabulary(folder: Path) -> Path:
    """Write a WordPiece vocabulary of `WORDS` and single letters; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    pieces = [*special, *dict.fromkeys([*WORDS, *letters, *(f"##{c}" for c in letters)])]
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n")
    return path


def build_blip_vqa(folder: Path) -> Path:
    """A BLIP that answers questions about an image."""
    from transformers import BlipForQuestionAnswering

    return _build_blip(BlipForQuestionAnswering, folder, seed=5)


def build_blip_captioner(folder: Path) -> Path:
    """A BLIP that describes an image."""
    from transformers import BlipForConditionalGeneration

    return _build_blip(BlipForConditionalGeneration, folder, seed=6)


def tiny_detr(kind: type, labels: Sequence[str], **changes: object) -> Any:
    """The configuration of a small detector of the RT-DETR family.

    Args:
        kind: configuration class of transformers.
        labels: names of the classes.
        **changes: further values.
    """
    from transformers import RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 24],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        layer_type="basic",
    )
    return kind(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 16, 24],
        encoder_layers=1,
        encoder_ffn_dim=48,
        encoder_attention_heads=4,
        d_model=32,
        num_queries=12,
        decoder_ffn_dim=48,
        decoder_attention_heads=4,
        decoder_in_channels=[32, 32, 32],
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        **changes,
    )


def build_person_detector(folder: Path) -> Path:
    """An RT-DETR with COCO's label `person`; its scores follow the image."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessorPil

    torch.manual_seed(7)
    config = tiny_detr(RTDetrConfig, ["person", "car"], decoder_layers=1, num_denoising=0)
    model = RTDetrForObjectDetection(config)
    _liven(model)
    # Sure of persons: a random detector's scores would all be near one half.
    for head in [model.model.enc_score_head, *model.model.decoder.class_embed]:
        nn.init.normal_(head.weight, std=0.5)
        head.bias.data = torch.tensor([1.0, -4.0])
    size = {"height": 96, "width": 96}
    _calibrate(model, torch.rand(4, 3, 96, 96))
    model.save_pretrained(folder)
    RTDetrImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def build_vitpose(folder: Path) -> Path:
    """A ViTPose of COCO's 17 keypoints."""
    from transformers import (
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
        VitPoseImageProcessorPil,
    )

    torch.manual_seed(8)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_indices=[2],
    )
    labels = {index: f"keypoint-{index}" for index in range(17)}
    model = VitPoseForPoseEstimation(
        VitPoseConfig(
            backbone_config=backbone, num_labels=17, id2label=labels, use_simple_decoder=True
        )
    )
    nn.init.normal_(model.head.conv.weight, std=0.3)
    nn.init.constant_(model.head.conv.bias, 0.5)
    model.save_pretrained(folder)
    VitPoseImageProcessorPil(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


def build_safety_checker(folder: Path) -> Path:
    """CompVis' safety checker, its preprocessor as old as the hub's; no concept fires by itself."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    torch.manual_seed(9)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    nn.init.normal_(model.concept_embeds)
    nn.init.normal_(model.special_care_embeds)
    model.concept_embeds_weights.data.fill_(2.0)
    model.special_care_embeds_weights.data.fill_(2.0)
    model.save_pretrained(folder)
    old = {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 32,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    return folder


def build_vit_classifier(folder: Path) -> Path:
    """An image classifier with the labels `normal` and `nsfw`."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(10)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        image_size=32,
        patch_size=8,
        initializer_range=0.2,
        id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def _build_blip(kind, folder: Path, seed: int) -> Path:
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipImageProcessorPil,
        BlipTextConfig,
        BlipVisionConfig,
    )

    torch.manual_seed(seed)
    tokenizer = BertTokenizer(vocab=str(bert_vocabulary(folder)), model_max_length=64)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    # BLIP's own initialiser range of the image encoder is 1e-10, which makes it blind.
    text = BlipTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        encoder_hidden_size=32,
        intermediate_size=48,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=tokenizer.convert_tokens_to_ids("[DEC]"),
        sep_token_id=tokenizer.sep_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = BlipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        initializer_range=0.2,
    )
    config = BlipConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=16,
        image_text_hidden_size=16,
    )
    model = kind(config)
    model.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _liven(model: nn.Module) -> None:
    """Initialise convolutions so that a random backbone passes its input on."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)


def _calibrate(model: nn.Module, images: torch.Tensor) -> None:
    """Take the statistics of batch normalisation from some images."""
    frozen = [m for m in model.modules() if type(m).__name__.endswith("FrozenBatchNorm2d")]
    hooks = [m.register_forward_pre_hook(take_statistics) for m in frozen]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()


def take_statistics(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Take the statistics of a batch normalisation from its input, as a forward pre-hook."""
    (x,) = inputs
    module.running_mean.copy_(x.mean((0, 2, 3)))
    module.running_var.copy_(x.var((0, 2, 3)) + 1e-5)
