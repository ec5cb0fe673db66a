"""SDXL, SD 1.5, T2I-Adapter and ControlNet of a few hundred thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn


def clip_tokenizer(folder: Path):
    """CLIP's tokenizer with the 256 byte symbols and no merges; writes its two files.

    Args:
        folder: where vocabulary and merges go.
    """
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir(parents=True, exist_ok=True)
    symbols = list(bytes_to_unicode().values())
    words = [*symbols, *(f"{s}</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
        pad_token="<|endoftext|>",
    )


def build_sdxl(folder: Path) -> Path:
    """A Stable Diffusion XL pipeline, each part with plain weights and those of variant fp16."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder / "tokenizer")
    config = _text_config(len(tokenizer))
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1, 1),
        projection_class_embeddings_input_dim=32 + 6 * 8,
        cross_attention_dim=64,
        norm_num_groups=8,
    )
    pipe = StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(folder / "tokenizer_2"),
        unet=unet,
        scheduler=_scheduler(EulerDiscreteScheduler),
    )
    pipe.save_pretrained(folder)
    pipe.to(dtype=torch.float16).save_pretrained(folder, variant="fp16")
    _old_tokenizers(folder)
    return folder


def build_sd15(folder: Path) -> Path:
    """A Stable Diffusion 1.5 pipeline without a safety checker."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(1)
    tokenizer = clip_tokenizer(folder / "tokenizer")
    StableDiffusionPipeline(
        vae=_vae(0.18215),
        text_encoder=CLIPTextModel(_text_config(len(tokenizer))),
        tokenizer=tokenizer,
        unet=_sd15_unet(),
        scheduler=_scheduler(PNDMScheduler, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    _old_tokenizers(folder)
    return folder


def build_t2i_adapter(folder: Path) -> Path:
    """A T2I-Adapter for `build_sdxl`."""
    from diffusers import T2IAdapter

    torch.manual_seed(2)
    adapter = T2IAdapter(
        in_channels=3,
        channels=[32, 64, 64, 64],
        num_res_blocks=1,
        downscale_factor=16,
        adapter_type="full_adapter_xl",
    )
    adapter.save_pretrained(folder)
    return folder


def build_controlnet(folder: Path) -> Path:
    """A ControlNet for `build_sdxl` that listens: a fresh one adds exactly nothing."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    base = folder.parent / "sdxl"
    if not base.exists():
        build_sdxl(base)
    torch.manual_seed(3)
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    _open(controlnet)
    controlnet.save_pretrained(folder)
    return folder


def build_sd15_controlnet(folder: Path) -> Path:
    """A ControlNet for `build_sd15` that listens."""
    from diffusers import ControlNetModel

    torch.manual_seed(4)
    controlnet = ControlNetModel.from_unet(
        _sd15_unet(), conditioning_embedding_out_channels=(8, 8, 16, 16)
    )
    _open(controlnet)
    controlnet.save_pretrained(folder)
    return folder


def _old_tokenizers(folder: Path) -> None:
    """Lay the tokenizers out as the hub has them: vocabulary and merges, no tokenizer.json."""
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
               "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}  # fmt: skip
    for tokenizer in folder.glob("tokenizer*"):
        (tokenizer / "tokenizer.json").unlink()
        (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))


def _text_config(vocabulary: int):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=37,
        projection_dim=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def _vae(scaling_factor: float):
    from diffusers import AutoencoderKL

    # Four stages keep the real factor of 8 between pixels and latents.
    return AutoencoderKL(
        block_out_channels=[16] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        layers_per_block=1,
        scaling_factor=scaling_factor,
    )


def _sd15_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=32,
        norm_num_groups=8,
    )


def _scheduler(kind, **options):
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)


def _open(controlnet) -> None:
    """Give the zero convolutions and the condition's embedding weights that pass something on."""
    for conv in controlnet.controlnet_cond_embedding.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
    zeros = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    for conv in zeros:
        nn.init.normal_(conv.weight, std=0.1)
