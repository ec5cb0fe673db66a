"""FLAME's releases are identified by content; a file wrongly called open is refused."""

import pytest

from ml.flame.releases import OPEN_DESCRIPTION, OPEN_KEY, RELEASES, identify
from ml.flame.safe_pickle import FlameFileError
from ml.records.register import REGISTER

STANDARD = dict.fromkeys(("v_template", "f", "shapedirs"))
OPEN = {**STANDARD, OPEN_KEY: {**OPEN_DESCRIPTION, "source": "SUPR"}}
SHA = {release.asset: release.sha256 for release in RELEASES}
UNKNOWN = "0" * 64


def test_each_release_is_registered_with_its_hash():
    assert list(SHA) == ["flame-2020", "flame-2023", "flame-2023-open"]
    assert all(len(sha256) == 64 for sha256 in SHA.values())
    assert len(set(SHA.values())) == 3
    assert [REGISTER[asset].redistributable for asset in SHA] == [False, False, True]


@pytest.mark.parametrize("asset", SHA)
def test_a_known_file_is_its_release_whatever_its_name(asset, tmp_path):
    title = identify(tmp_path / "open.pkl", SHA[asset], STANDARD, asset)
    assert title.endswith("(known sha256)")
    assert identify(tmp_path / "x.pkl", SHA[asset], STANDARD, None) == title


@pytest.mark.parametrize(
    ("sha256", "content", "asset", "message"),
    [
        (SHA["flame-2020"], STANDARD, "flame-2023-open", "by its sha256 it is FLAME 2020, but"),
        (SHA["flame-2023"], STANDARD, "flame-2023-open", "by its sha256 it is FLAME 2023, but"),
        (SHA["flame-2023"], STANDARD, "flame-2020", "set source_asset: flame-2023"),
        (SHA["flame-2020"], STANDARD, "random-weights", "by its sha256 it is FLAME 2020, but"),
        (UNKNOWN, STANDARD, "flame-2023-open", f"lacks the .*{OPEN_KEY}.* FLAME 2020 or FLAME"),
        (UNKNOWN, OPEN, "flame-2020", "has the description .* so it is FLAME 2023 Open, but"),
        (UNKNOWN, OPEN, "flame-2023", "set source_asset: flame-2023-open"),
        # the key alone, or with something else in it, makes no file open
        (UNKNOWN, {**STANDARD, OPEN_KEY: None}, "flame-2023-open", "lacks .*n_expr 100"),
        (
            UNKNOWN,
            {**STANDARD, OPEN_KEY: {}},
            "flame-2023-open",
            "lacks .* set source_asset: flame-2020 or flame-2023",
        ),
        (
            UNKNOWN,
            {**STANDARD, OPEN_KEY: {**OPEN_DESCRIPTION, "n_expr": 50}},
            "flame-2023-open",
            "expr_components last_100",
        ),
    ],
)
def test_a_file_that_is_called_another_release_is_refused(
    sha256, content, asset, message, tmp_path
):
    with pytest.raises(FlameFileError, match=message):
        identify(tmp_path / "flame2023_Open.pkl", sha256, content, asset)


def test_of_unknown_bytes_the_content_says_what_can_be_said(tmp_path):
    path = tmp_path / "f.pkl"
    told = identify(path, UNKNOWN, STANDARD, "flame-2020")
    assert told == (
        "FLAME 2020 or FLAME 2023 by its content; its sha256 is of no known file, and nothing in "
        "it says which of them than that it is called flame-2020"
    )
    assert identify(path, UNKNOWN, STANDARD, None).endswith("nothing in it says which of them")
    told = identify(path, UNKNOWN, OPEN, "flame-2023-open")
    assert told == "FLAME 2023 Open by its content; its sha256 is of no known file"
