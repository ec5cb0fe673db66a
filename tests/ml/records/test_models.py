"""Model references: one source, an exact version, and the bytes that were meant."""

import hashlib

import pytest
import torch
from pydantic import ValidationError

from ml.records.models import (
    FileOrFolder,
    ModelError,
    ModelFile,
    ModelRef,
    choose_device,
    hash_model,
    require,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models" / "net"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "unet" / "weights.bin").write_bytes(b"\x00\x01")
    return folder


def test_a_file_s_hash_is_its_sha256(folder):
    expected = hashlib.sha256(b"\x00\x01").hexdigest()
    assert hash_model(folder / "unet" / "weights.bin") == expected


def test_a_folder_s_hash_follows_content_and_names_but_not_hidden_files(folder):
    first = hash_model(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.lock").write_text("x")
    assert hash_model(folder) == first
    (folder / "unet" / "weights.bin").rename(folder / "unet" / "other.bin")
    renamed = hash_model(folder)
    assert renamed != first
    (folder / "unet" / "other.bin").write_bytes(b"\x00\x02")
    assert hash_model(folder) not in (first, renamed)


def test_a_folder_resolves_to_its_hash_and_stays_local(folder, tmp_path):
    ref = ModelRef(path="models/net", sha256=hash_model(folder), asset="crop-regressor")
    model = ref.resolve(tmp_path)
    assert model.location == str(folder)
    assert model.arguments() == {"local_files_only": True}
    assert model.record() == {
        "asset": "crop-regressor",
        "source": "models/net",
        "version": hash_model(folder),
        "licence": "Apache-2.0",
    }


def test_a_hub_s_repository_is_taken_at_its_commit(tmp_path):
    model = ModelRef(hub_id="owner/net", revision=COMMIT, asset="crop-regressor").resolve(tmp_path)
    assert model.location == "owner/net"
    assert model.arguments() == {"revision": COMMIT}
    assert model.record()["version"] == COMMIT


def test_other_bytes_than_meant_are_refused(folder, tmp_path):
    ref = ModelRef(path="models/net", sha256="0" * 64, asset="crop-regressor")
    with pytest.raises(ModelError, match=rf"'crop-regressor': .* has sha256 {hash_model(folder)}"):
        ref.resolve(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "nothing at .*absent; bring its files there"), ("empty", "empty holds no file")],
)
def test_an_absent_model_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=message):
        ModelRef(path=name, asset="crop-regressor").resolve(tmp_path)


def test_an_unregistered_asset_is_refused(folder, tmp_path):
    with pytest.raises(KeyError, match="'nobody-s-net' is unknown"):
        ModelRef(path="models/net", asset="nobody-s-net").resolve(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected either path or hub_id"),
        ({"path": "a", "hub_id": "b/c"}, "expected either path or hub_id"),
        ({"hub_id": "b/c", "revision": "main"}, "revision must be a commit of b/c .*got 'main'"),
        ({"path": "a", "revision": COMMIT}, "a path has no revision"),
        ({"path": "a", "sha256": "xyz"}, "sha256"),
    ],
)
def test_a_reference_that_leaves_the_version_open_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ModelRef(asset="crop-regressor", **values)


HUB = {"hub_id": "b/c", "revision": COMMIT}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelFile, HUB, "b/c is a repository, and one file is needed; name it: file: <name"),
        (ModelFile, {"path": "a.onnx", "variant": "fp16"}, "a file has no variant, got 'fp16'"),
        (ModelFile, {"path": "a", "file": "b"}, "a path has no file; name the file in path"),
        (ModelFile, {**HUB, "file": "../b"}, r"must be a name inside b/c, got '\.\./b'"),
        (ModelFile, {**HUB, "file": "/b"}, "must be a name inside b/c, got '/b'"),
        (ModelRef, {**HUB, "file": "b"}, "the whole folder is loaded, not the file 'b'"),
        (ModelRef, {**HUB, "sha256": "0" * 64}, "the revision pins every file of b/c"),
        (ModelRef, {"path": "a", "variant": "fp 16"}, "variant"),
    ],
)
def test_a_file_and_a_folder_are_named_each_in_its_way(kind, values, message):
    with pytest.raises(ValidationError, match=message):
        kind(asset="crop-regressor", **values)


def test_what_may_be_either_is_checked_by_its_section():
    ref = FileOrFolder(asset="vitpose", **HUB)
    ref.check_kind(is_file=False)
    with pytest.raises(ValueError, match="one file is needed"):
        ref.check_kind(is_file=True)


def test_a_folder_in_place_of_a_file_is_refused_with_its_files(folder, tmp_path):
    with pytest.raises(
        ModelError, match=r"is a folder, and one file is needed; it has config\.json"
    ):
        ModelFile(path="models/net", asset="yunet").resolve(tmp_path)


class Net:
    """Keeps what it is called with."""

    @staticmethod
    def from_pretrained(location, **options):
        return options


@pytest.mark.parametrize(
    ("names", "variant", "missing"),
    [
        (["model.safetensors"], "fp16", True),
        (["model.safetensors", "model.fp16.safetensors"], "fp16", False),
        (["model.fp16-00001-of-00002.safetensors"], "fp16", False),
        (["model.fp16.safetensors"], "bf16", True),
        (["model.safetensors"], "", False),
    ],
)
def test_a_variant_is_that_of_the_reference_and_must_be_there(tmp_path, names, variant, missing):
    for name in ["config.json", *names]:
        (tmp_path / name).write_bytes(b"{}")
    ref = ModelRef(path=".", variant=variant, asset="sdxl-base")
    model = ref.resolve(tmp_path)
    if not missing:
        assert model.load(Net).get("variant", "") == variant
        assert "variant" not in model.load_part(Net)
        return
    with pytest.raises(ModelError, match=rf"'{variant}'; its files are config\.json, model\."):
        model.load(Net)


def test_each_part_of_a_pipeline_needs_the_variant(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "P", "unet": [], "vae": []}')
    for name in ("unet/model.fp16.safetensors", "vae/model.safetensors", "old/model.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    model = ModelRef(path=".", variant="fp16", asset="sdxl-base").resolve(tmp_path)
    with pytest.raises(ModelError, match=r"no weights of variant 'fp16' in vae; its files are mod"):
        model.load(Net)
    (tmp_path / "vae" / "model.fp16.safetensors").write_bytes(b"")
    assert model.load(Net)["variant"] == "fp16"


@pytest.mark.parametrize("available", [True, False])
def test_the_device_is_the_gpu_when_there_is_one(available, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto").type == ("cuda" if available else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_a_model_that_a_backend_needs_must_be_named(tmp_path):
    with pytest.raises(ModelError, match=r"images\.diffusion\.base: sdxl-t2i needs a model .*none"):
        require(None, "images.diffusion.base", "sdxl-t2i", tmp_path)


def test_files_of_another_kind_are_refused_with_the_library_s_words(folder, tmp_path):
    class Net:
        @staticmethod
        def from_pretrained(location, **options):
            raise OSError(f"no weights in {location}, {sorted(options)}")

    model = ModelRef(path="models/net", asset="crop-regressor").resolve(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be loaded as Net: no weights .*local_files"):
        model.load(Net)
