"""The production profiles: complete, of known parents, and the open one of free parents only."""

from __future__ import annotations

import pytest

from ml.records.parents import dataset_parents, derive_parents
from ml.records.register import permission
from tests.fixtures.profiles import effective


@pytest.mark.parametrize("profile", ["demo", "research", "open", "research_tiny"])
def test_the_card_names_the_parents_that_the_values_imply(profile):
    values = effective(profile)
    stated = values["filtered_dataset"]["metadata"]["parents"]
    assert sorted(stated) == list(dataset_parents(values))
    assert values["filtered_dataset"]["metadata"]["rendered"] == (profile == "demo")


def test_the_open_profile_has_free_parents_only():
    allowed = permission(derive_parents(effective("open")))
    assert allowed.commercial, allowed.forbid_commercial
    assert allowed.redistributable, allowed.forbid_redistribution


def test_the_research_profile_has_restricted_parents():
    allowed = permission(derive_parents(effective("research")))
    assert "laion-face" in allowed.forbid_commercial
    assert "flame-2020" in allowed.forbid_redistribution
    # The detector starts from YOLO-NAS on COCO; the dataset knows nothing of it.
    assert "yolo-nas-coco" in allowed.forbid_commercial
    assert "yolo-nas-coco" not in dataset_parents(effective("research"))


def test_weights_that_a_model_starts_from_do_not_bind_the_dataset_it_is_tuned_on():
    values = effective("finetune")
    assert "vggheads-release" in derive_parents(values)
    assert {"dad-3dnet", "own-images"} <= set(dataset_parents(values))
    assert "vggheads-release" not in dataset_parents(values)


@pytest.mark.parametrize("profile", ["research", "open"])
def test_large_trainings_see_whole_images(profile):
    assert effective("demo")["trained_model"]["loader"]["mosaic"]["probability"] > 0
    for stage in ("trained_model", "trained_model_exact"):
        assert effective(profile)[stage]["loader"]["mosaic"]["probability"] == 0


@pytest.mark.parametrize("profile", ["research", "open"])
def test_sampling_is_the_paper_s(profile):
    diffusion = effective(profile)["images"]["diffusion"]
    assert (diffusion["steps"], diffusion["guidance"]) == (40, 7.0)
    assert diffusion["condition_scale"] == 0.7
    assert diffusion["algorithm"] == "sde-dpmsolver++"


def test_the_rehearsal_uses_production_backends_only():
    values = effective("research_tiny")
    research = effective("research")
    for key in ("flame_file", "landmark_file", "masks_file", "index_files"):
        assert values["head_model"][key] == research["head_model"][key] is not None
    assert values["poses"]["source"] == research["poses"]["source"] == "webdataset"
    assert values["poses"]["images"]["require_label"]
    assert values["poses"]["images"]["estimator"]["backend"] == "vitpose"
    assert values["poses"]["images"]["describer"]["backend"] == "blip-vqa"
    assert (values["captions"]["captioner"], values["captions"]["name_detector"]) == (
        "source",
        "gliner",
    )
    assert values["images"]["backend"] == "sdxl-t2i"
    assert values["images"]["diffusion"]["variant"] == "fp16"
    assert values["labels"]["source"] == "file"
    assert values["head_detector"]["source"] == "finetune"
    assert values["annotations"]["regressor"]["backend"] == "dad"
    assert values["filtered_dataset"]["face_check"]["backend"] == "scrfd"
    assert values["filtered_dataset"]["identity"]["embedder"] == "arcface"
    safety = values["filtered_dataset"]["safety"]
    assert safety["clip"]["model"]
    assert safety["classifier"]["model"]
    assert values["filtered_dataset"]["identity"]["index"]
