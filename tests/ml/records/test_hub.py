"""Files of a model hub: downloaded once, then taken from the cache, named when missing."""

import hashlib

import pytest
from huggingface_hub import constants

from ml.records.models import ModelError, ModelFile, ModelRef
from tests.fixtures.model_hub import COMMIT

NET = "owner/net"


def file_ref(file="faces/det_10g.onnx", **values):
    return ModelFile(hub_id=NET, revision=COMMIT, file=file, asset="scrfd-insightface", **values)


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(model_hub, tmp_path, monkeypatch):
    model_hub.files[NET] = {"faces/det_10g.onnx": b"onnx", "README.md": b"x"}
    model = file_ref().resolve(tmp_path)
    assert model.location == str(model_hub.cached(NET) / "faces" / "det_10g.onnx")
    assert model.version == hashlib.sha256(b"onnx").hexdigest()
    assert model.record()["source"] == "owner/net/faces/det_10g.onnx"
    asked = list(model_hub.requests)
    assert any(line.startswith("GET") for line in asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert file_ref().resolve(tmp_path) == model
    assert model_hub.requests == asked


def test_other_bytes_than_stated_are_refused(model_hub, tmp_path):
    model_hub.files[NET] = {"faces/det_10g.onnx": b"other"}
    with pytest.raises(ModelError, match=r"has sha256 [0-9a-f]{64}, expected 0{64}"):
        file_ref(sha256="0" * 64).resolve(tmp_path)


def test_for_a_missing_name_the_existing_files_are_listed(model_hub, tmp_path):
    model_hub.files[NET] = {"scrfd_10g_bnkps.onnx": b"a", "README.md": b"b"}
    with pytest.raises(
        ModelError,
        match=r"has no file faces/det_10g\.onnx; it has README\.md, scrfd_10g_bnkps\.onnx",
    ):
        file_ref().resolve(tmp_path)


def test_offline_a_file_that_is_not_cached_is_named_with_what_to_do(
    model_hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"det_10g\.onnx of owner/net .* not in the local cache .*"
                                         r"go online, or bring the file"):  # fmt: skip
        file_ref().resolve(tmp_path)


def test_a_repository_that_nobody_knows_is_an_error_of_the_model(model_hub, tmp_path):
    with pytest.raises(ModelError, match=r"'scrfd-insightface': faces/det_10g\.onnx of owner/net"):
        file_ref().resolve(tmp_path)


def test_a_part_of_a_folder_is_downloaded_by_its_patterns(model_hub, tmp_path):
    model_hub.files[NET] = {"config.json": b"{}", "spm.model": b"s", "tf_model.h5": b"large"}
    model = ModelRef(hub_id=NET, revision=COMMIT, asset="deberta-v3-large").resolve(tmp_path)
    folder = model.folder(["*.json", "*.model"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "spm.model"]


class Net:
    """Loads nothing."""

    @staticmethod
    def from_pretrained(location, **options):
        raise OSError(f"no weights of {options['variant']} in {location}")


def test_a_variant_missing_on_the_hub_is_an_error_with_its_files(model_hub, tmp_path):
    model_hub.files[NET] = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b""}
    ref = ModelRef(hub_id=NET, revision=COMMIT, variant="fp16", asset="sdxl-base")
    with pytest.raises(
        ModelError, match=r"as Net with variant 'fp16'.*; it has config\.json, diff"
    ):
        ref.resolve(tmp_path).load(Net)
