"""Profiles become params.yaml; wrong keys are named with file, section and key."""

from types import SimpleNamespace

import pytest
import yaml

from dagster_project.params import Params, compose, read_params, read_profile
from ml.records.config import StageConfig


class Inner(StageConfig):
    """Inner values."""

    depth: int = 3
    """How deep."""


class LampConfig(StageConfig):
    """A lamp.

    More about lamps.
    """

    watts: float = 40.0
    """Power, watts."""
    inner: Inner = Inner()
    """What is inside."""
    names: tuple[str, ...] = ("a", "no")
    """Names that YAML could take for something else."""


LAMP = SimpleNamespace(name="lamp", config_class=lambda: LampConfig)
RUN = "run: {seed: 1, num_shards: 2, shard_size: 3, workers: 1, threads: 1}\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "small.yaml").write_text(RUN)
    return tmp_path


def write(root, name, text):
    (root / "conf" / f"{name}.yaml").write_text(text)


def test_every_key_is_written_with_what_it_means(root):
    write(root, "bright", "extends: small\nlamp: {watts: 100, inner: {depth: 5}}\n")
    text = compose(root, "bright", [LAMP])
    values = yaml.safe_load(text)
    assert values["run"] == {
        "profile": "bright",
        "seed": 1,
        "num_shards": 2,
        "shard_size": 3,
        "workers": 1,
        "threads": 1,
    }
    assert values["lamp"] == {"watts": 100.0, "inner": {"depth": 5}, "names": ["a", "no"]}
    assert "# Power, watts." in text
    assert "# A lamp." in text
    assert "More about lamps" not in text


def test_what_is_composed_is_read_back(root):
    (root / "params.yaml").write_text(compose(root, "small", [LAMP]))
    params = read_params(root, ["lamp"])
    assert params.config(LAMP) == LampConfig()
    assert params.run.num_shards == 2
    assert params.subset(["lamp.inner.depth", "run.seed"]) == {"lamp.inner.depth": 3, "run.seed": 1}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("extends: small\nlamp: {wats: 3}", r"conf/wrong.yaml: .*lamp.wats.*Known keys.*watts"),
        ("extends: small\nlamp: {watts: many}", r"conf/wrong.yaml: .*lamp.watts.*got 'many'"),
        ("extends: small\nlump: {}", r"conf/wrong.yaml: unknown sections \['lump'\]"),
        ("extends: wrong", r"extend each other: wrong -> wrong"),
    ],
)
def test_a_wrong_profile_is_named(root, profile, message):
    write(root, "wrong", profile)
    with pytest.raises(ValueError, match=message):
        compose(root, "wrong", [LAMP])


def test_an_absent_profile_names_those_there_are(root):
    with pytest.raises(FileNotFoundError, match=r"no such profile; there are \['small'\]"):
        read_profile(root, "large")


def test_wrong_sections_and_missing_keys_of_params_are_named(root):
    path = root / "params.yaml"
    path.write_text(RUN + "lump: {}\n")
    with pytest.raises(ValueError, match=r"unknown sections \['lump'\]"):
        read_params(root, ["lamp"])
    path.write_text(RUN)
    with pytest.raises(ValueError, match=r"missing sections \['lamp'\]"):
        read_params(root, ["lamp"])
    values = yaml.safe_load(compose(root, "small", [LAMP]))
    del values["lamp"]["inner"]["depth"], values["lamp"]["watts"]
    with pytest.raises(ValueError, match=r"no value for lamp.watts, lamp.inner.depth"):
        Params(values, path).config(LAMP)
    with pytest.raises(ValueError, match=r"no value for lamp.watts, a param in dvc.yaml"):
        Params(values, path).subset(["lamp.watts"])
