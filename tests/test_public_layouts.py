"""Models in the layout of their public folders load by the calls that production makes.

The lists of files are those of the hub's pages; the weights are tiny. A folder of our own making
that has another file, or lacks one, fails here, so that no layout of our own is tested by mistake.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.profiles import read_profile
from ml.generation.config import ImagesConfig
from ml.generation.diffusion.pipelines import load_pipeline
from ml.records.models import ModelError
from ml.records.register import REGISTER

PROJECT = Path(__file__).parents[1]
_ONE_NETWORK = {"config.json", "diffusion_pytorch_model.safetensors"}
_TRANSFORMERS = {"config.json", "model.safetensors", "preprocessor_config.json"}
_TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")


def _pipeline(weights: dict[str, str], tokenizers: list[str], variants: list[str]) -> set[str]:
    """Files of a folder of diffusers; `weights`: part -> stem of its file of weights."""
    return {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"{folder}/{name}" for folder in tokenizers for name in _TOKENIZER),
        *(f"{part}/config.json" for part in weights),
        *(f"{part}/{stem}{v}.safetensors" for part, stem in weights.items() for v in variants),
    }


_SD15 = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
PUBLISHED: dict[str, set[str]] = {
    # TencentARC/t2i-adapter-openpose-sdxl-1.0, xinsir/controlnet-openpose-sdxl-1.0
    "t2i-adapter": _ONE_NETWORK,
    "sdxl-controlnet": _ONE_NETWORK,
    # lllyasviel/control_v11p_sd15_openpose
    "sd15-controlnet": _ONE_NETWORK,
    # SG161222/RealVisXL_V4.0, stabilityai/stable-diffusion-xl-base-1.0
    "sdxl": _pipeline(
        {**_SD15, "text_encoder_2": "model"}, ["tokenizer", "tokenizer_2"], ["", ".fp16"]
    ),
    "sd15": _pipeline(_SD15, ["tokenizer"], [""]),
    # urchade/gliner_largev2, and of microsoft/deberta-v3-large what is read
    "gliner": {"gliner_config.json", "pytorch_model.bin"},
    "deberta-v3": {"config.json", "spm.model", "tokenizer_config.json"},
    # Salesforce/blip-vqa-base
    "blip-vqa": _TRANSFORMERS | {"tokenizer.json", "tokenizer_config.json", "vocab.txt"},
    # CompVis/stable-diffusion-safety-checker, Falconsai/nsfw_image_detection
    "safety-checker": _TRANSFORMERS,
    "vit-classifier": _TRANSFORMERS,
    # usyd-community/vitpose-base-simple, PekingU/rtdetr_r50vd
    "vitpose": _TRANSFORMERS,
    "person-detector": _TRANSFORMERS,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tiny_model_has_the_files_of_its_public_folder(name, tiny_models):
    folder = tiny_models.path(name)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    optional = {"generation_config.json", "special_tokens_map.json"}
    assert found - optional == PUBLISHED[name] - optional


def images_of_research(tiny_models, **changes) -> ImagesConfig:
    """The research profile's images, its models' paths replaced by the tiny ones."""
    values = dict(read_profile(PROJECT, "research").values["images"])
    diffusion = dict(values["diffusion"])
    assert diffusion["variant"] == "fp16"
    for key, name in (("base", "sdxl"), ("conditioner", "t2i-adapter")):
        diffusion[key] = {**diffusion[key], "path": str(tiny_models.path(name))}
    return ImagesConfig(**{**values, "diffusion": {**diffusion, **changes.pop("diffusion", {})},
                           **changes})  # fmt: skip


def test_research_loads_the_base_s_fp16_and_the_adapter_s_only_weights(tiny_models, tmp_path):
    config = images_of_research(tiny_models)
    loaded = load_pipeline(config.backend, config.diffusion, tmp_path)
    assert [model.record().get("variant") for model in loaded.models] == ["fp16", None]
    assert type(loaded.pipe.adapter).__name__ == "T2IAdapter"


def test_a_controlnet_without_variants_is_loaded_next_to_a_base_with_fp16(tiny_models, tmp_path):
    conditioner = {
        "path": str(tiny_models.path("sdxl-controlnet")),
        "asset": "controlnet-openpose-sdxl",
    }
    config = images_of_research(
        tiny_models, backend="sdxl-controlnet", diffusion={"conditioner": conditioner}
    )
    loaded = load_pipeline(config.backend, config.diffusion, tmp_path)
    assert [model.ref.variant for model in loaded.models] == ["fp16", ""]


def test_a_variant_asked_of_the_adapter_is_refused_with_what_it_has(tiny_models, tmp_path):
    conditioner = {
        "path": str(tiny_models.path("t2i-adapter")),
        "asset": "t2i-adapter-openpose-sdxl",
        "variant": "fp16",
    }
    config = images_of_research(tiny_models, diffusion={"conditioner": conditioner})
    with pytest.raises(
        ModelError,
        match=r"no weights of variant 'fp16'; its files are config\.json, "
        r"diffusion_pytorch_model\.safetensors",
    ):
        load_pipeline(config.backend, config.diffusion, tmp_path)


def test_a_base_that_names_its_own_variant_keeps_it():
    base = {"path": "models/b", "asset": "sdxl-base", "variant": "bf16"}
    diffusion = ImagesConfig(diffusion={"base": base, "variant": "fp16"}).diffusion
    assert diffusion.base is not None
    assert diffusion.base.variant == "bf16"


def files_named(section):
    """(asset, path) of every file that a profile's section names."""
    if isinstance(section, dict):
        path, asset = section.get("path"), section.get("asset")
        if path and asset and Path(path).suffix in (".onnx", ".pth", ".trcd"):
            yield asset, path
        for inner in section.values():
            yield from files_named(inner)


@pytest.mark.parametrize(("profile", "count"), [("research", 5), ("open", 1), ("finetune", 1)])
def test_profiles_ask_for_files_by_their_published_names(profile, count):
    found = list(files_named(dict(read_profile(PROJECT, profile).values)))
    assert len(found) == count
    for asset, path in found:
        assert Path(path).name in REGISTER[asset].files, f"{path}: {REGISTER[asset].files}"
