"""Model references: one source, an exact version, and the bytes that were meant."""

import hashlib

import pytest
import torch
from pydantic import ValidationError

from ml.records.models import ModelError, ModelRef, choose_device, hash_model, require

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
