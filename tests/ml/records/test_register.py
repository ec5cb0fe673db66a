"""Licences: permitted uses of a run follow from its parents."""

import pytest

from ml.records.parents import UnknownParent, dataset_parents, derive_parents
from ml.records.register import REGISTER, check_export, lookup, permission
from tests.fixtures.profiles import NAMES, effective


def test_every_entry_says_its_licence():
    assert len(REGISTER) > 30
    for name, asset in REGISTER.items():
        assert asset.name == name
        assert asset.licence
        assert asset.url.startswith("https://") or asset.licence.startswith(
            ("Apache-2.0", "brought by the user")
        )
        # What may not be passed on may not be sold either.
        assert asset.redistributable or not asset.commercial


def test_permission_is_the_strictest_parents():
    allowed = permission(["renderer", "dad-3dnet", "flame-2020", "renderer"])
    assert allowed.parents == ("dad-3dnet", "flame-2020", "renderer")
    assert not allowed.commercial
    assert allowed.forbid_commercial == ("dad-3dnet", "flame-2020")
    assert allowed.forbid_redistribution == ("flame-2020",)
    assert permission(["renderer"]).redistributable
    with pytest.raises(KeyError, match="'x' is unknown"):
        permission(["x"])


@pytest.mark.parametrize("name", NAMES)
def test_a_profiles_parents_are_registered_and_on_its_card(name):
    values = effective(name)
    permission(derive_parents(values))
    parents = dataset_parents(values)
    on_card = set(values["filtered_dataset"]["metadata"]["parents"])
    assert set(parents) <= on_card, f"add to metadata.parents: {sorted(set(parents) - on_card)}"


@pytest.mark.parametrize("name", [name for name in NAMES if name in ("demo", "smoke", "open")])
def test_these_profiles_may_be_given_away_and_sold(name):
    check_export(derive_parents(effective(name)), commercial=True)


def test_parents_are_derived_from_files_and_choices():
    values = {
        "head_model": {"source": "flame", "source_asset": "flame-2023-open"},
        "poses": {"source": "folder", "source_asset": "laion-face"},
        "images": {
            "backend": "sdxl-t2i",
            "diffusion": {
                "base": {"path": "m", "asset": "sdxl-base"},
                "conditioner": {"hub_id": "a/b", "asset": "t2i-adapter-openpose-sdxl"},
                "other": None,
            },
        },
        "filtered_dataset": {"safety": {"checkers": [{"path": "", "asset": "unused"}]}},
    }
    assert derive_parents(values) == (
        "flame-2023-open", "laion-face", "sdxl-base", "t2i-adapter-openpose-sdxl",
    )  # fmt: skip
    values["head_model"]["source_asset"] = None
    with pytest.raises(UnknownParent, match="set it to flame-2020 or flame-2023-open"):
        derive_parents(values)


def test_initial_weights_are_a_parent_of_the_model_alone():
    values = {"trained_model": {"initial_weights": "m.pth", "source_asset": "yolo-nas-coco"}}
    assert derive_parents(values) == ("yolo-nas-coco",)
    assert dataset_parents(values) == ()
    values["trained_model"]["source_asset"] = None
    with pytest.raises(UnknownParent, match="set it to their name in the register, such as yolo"):
        derive_parents(values)


def test_unknown_names_list_the_known():
    with pytest.raises(KeyError, match="expected one of"):
        lookup("nobody")
