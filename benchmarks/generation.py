"""Images per second of the diffusion backends, with random weights: speed needs no trained ones.

    python -m benchmarks.generation                    # tiny models; SDXL rows where there is a GPU
    python -m benchmarks.generation --sizes 1024 --batches 1 4 8

The tiny rows run the stage's own generator, text encoders and adapter cache included. The SDXL rows
run a pipeline of SDXL's size from given embeddings on the GPU, in bfloat16, with and without
compilation. Without a GPU they say so.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import parser_of, start
from ml.generation.config import ImagesConfig
from ml.generation.diffusion.generator import DiffusionGenerator
from ml.generation.generator import GenerationRequest
from ml.poses.config import PosesConfig
from ml.poses.sampler import sample_pose
from ml.records.ids import sample_rng

BACKENDS = {
    "sdxl-t2i": ("sdxl", "t2i-adapter"),
    "sdxl-controlnet": ("sdxl", "sdxl-controlnet"),
    "sd15-controlnet": ("sd15", "sd15-controlnet"),
}


def seconds_of(function: Callable[[], object], repeats: int) -> float:
    """Return the best of some calls after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def tiny_row(backend: str, folder: Path, size: int, batch: int, steps: int, repeats: int) -> float:
    """Return images per second of the stage's generator with a tiny model."""
    from tests.tiny_models import TinyModels

    tiny = TinyModels(folder)
    base, conditioner = (str(tiny.path(name)) for name in BACKENDS[backend])
    config = ImagesConfig(
        backend=backend,
        diffusion={
            "base": {"path": base, "asset": "random-weights"},
            "conditioner": {"path": conditioner, "asset": "random-weights"},
            "steps": steps,
            "batch_size": batch,
            "device": "cpu",
        },
    )
    generator = DiffusionGenerator(None, config, folder)
    pose = sample_pose("pose-0", 0, PosesConfig(width=256, height=256))
    requests = [
        GenerationRequest(
            f"image-{index}",
            replace(pose, width=size, height=size),
            None,
            f"a person in a park, number {index}",
            "low quality",
            index,
            sample_rng(0, "images", f"image-{index}"),
        )
        for index in range(batch)
    ]
    return batch / seconds_of(lambda: generator.generate(requests), repeats)


def sdxl_pipeline(compiled: bool) -> Any:
    """Return SDXL with T2I-Adapter, at full size, of random weights, without text encoders."""
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        StableDiffusionXLAdapterPipeline,
        T2IAdapter,
    )

    with torch.device("cuda"):
        unet = sdxl_unet().to(torch.bfloat16)
        vae: Any = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=2,
            sample_size=1024,
            scaling_factor=0.13025,
        )
        vae.to(torch.bfloat16)
        adapter: Any = T2IAdapter(
            in_channels=3,
            channels=[320, 640, 1280, 1280],
            num_res_blocks=2,
            downscale_factor=16,
            adapter_type="full_adapter_xl",
        )
        adapter.to(torch.bfloat16)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="sde-dpmsolver++",
        use_karras_sigmas=True,
    )
    pipe = StableDiffusionXLAdapterPipeline(  # type: ignore[attr-defined]
        vae=vae,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet.to(memory_format=torch.channels_last),
        adapter=adapter,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=False,
    ).to("cuda")
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        pipe.unet = torch.compile(pipe.unet)
    return pipe


def sdxl_unet() -> Any:
    """Return SDXL's UNet: 2,567,463,684 parameters."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        cross_attention_dim=2048,
        layers_per_block=2,
    )


def sdxl_row(pipe: Any, size: int, batch: int, steps: int, repeats: int) -> float:
    """Return images per second of a pipeline of SDXL's size."""
    half: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    tokens = [torch.randn(batch, 77, 2048, **half) for _ in range(2)]
    pooled = [torch.randn(batch, 1280, **half) for _ in range(2)]
    image = torch.rand(batch, 3, size, size, **half)

    def sample() -> None:
        pipe(
            prompt_embeds=tokens[0],
            negative_prompt_embeds=tokens[1],
            pooled_prompt_embeds=pooled[0],
            negative_pooled_prompt_embeds=pooled[1],
            image=image,
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=7.0,
            adapter_conditioning_scale=0.7,
            output_type="pt",
        )

    return batch / seconds_of(sample, repeats)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tiny-size", type=int, default=128, help="side of the tiny rows, px")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="SDXL rows, px")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    start()
    print(f"\n| model | weights | side px | batch | {arguments.steps} steps, images/s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for backend in BACKENDS:
            for batch in arguments.batches:
                size = arguments.tiny_size
                speed = tiny_row(
                    backend, Path(folder), size, batch, arguments.steps, arguments.repeats
                )
                print(f"| {backend} | tiny | {size} | {batch} | {speed:.2f} |", flush=True)
    for compiled in (False, True):
        name = f"sdxl-t2i, bf16{', compiled' if compiled else ''}"
        pipe = sdxl_pipeline(compiled) if torch.cuda.is_available() else None
        for size, batch in np.ndindex(len(arguments.sizes), len(arguments.batches)):
            side, count = arguments.sizes[size], arguments.batches[batch]
            if pipe is None:
                result = "not measured: no GPU"
            else:
                steps, repeats = arguments.steps, arguments.repeats
                result = f"{sdxl_row(pipe, side, count, steps, repeats):.3f}"
            print(f"| {name} | SDXL's size | {side} | {count} | {result} |", flush=True)


if __name__ == "__main__":
    main()
