"""params.yaml and profiles: what holds, where it comes from, and one line for what is wrong."""

from __future__ import annotations

import difflib
from types import SimpleNamespace

import pytest
from dvc.utils.hydra import apply_overrides

from dagster_project.params import Params, profile_params, read_params, with_name
from dagster_project.profiles import NOT_SET, edits, read_profile
from dagster_project.stages import ROOT, STAGES
from ml.records.config import StageConfig, parse_yaml


class Inner(StageConfig):
    """Inner values."""

    depth: int = 3
    """How deep."""
    width: int = 4
    """How wide."""


class LampConfig(StageConfig):
    """A lamp."""

    watts: float = 40.0
    """Power, watts."""
    inner: Inner = Inner(width=7)
    """What is inside."""
    names: tuple[str, ...] = ("a", "no")
    """Names that YAML 1.1 takes for something else."""


LAMP = SimpleNamespace(name="lamp", config_class=lambda: LampConfig)
SPARE = SimpleNamespace(name="spare", config_class=lambda: LampConfig)
BOTH = [LAMP, SPARE]
RUN = "run: {seed: 1, num_shards: 2, shard_size: 3, workers: 1, threads: 1}\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "conf").mkdir()
    write(tmp_path, "small", RUN)
    return tmp_path


def write(root, name, text):
    (root / "conf" / f"{name}.yaml").write_text(text)


def write_profile(root, name, stages):
    path = root / "params.yaml"
    path.write_text(profile_params(root, name, stages).text)
    return path


def params_of(text, root):
    (root / "params.yaml").write_text(text)
    return read_params(root, ["lamp"])


def test_params_yaml_holds_what_differs_from_the_defaults(root):
    write(root, "bright", "extends: small\nlamp: {watts: 1e-6, inner: {depth: 5}, names: [no]}\n")
    path = write_profile(root, "bright", BOTH)
    text = path.read_text()
    assert text.splitlines()[0].startswith("# Profile bright:")
    assert text.endswith(
        "lamp:\n  watts: 1e-06\n  inner: {depth: 5}\n  names:\n  - no\nspare: {}\n"
    )
    params = read_params(root, ["lamp", "spare"])
    assert params.config(LAMP) == LampConfig(
        watts=1e-6, inner=Inner(depth=5, width=7), names=("no",)
    )
    assert params.config(SPARE) == LampConfig()
    assert (params.run.num_shards, params.run.profile) == (2, "bright")
    assert params.subset(["lamp.inner.depth", "run.seed"]) == {"lamp.inner.depth": 5, "run.seed": 1}


def test_a_profile_has_several_parents_and_the_later_one_wins(root):
    write(root, "bright", "lamp: {watts: 100, inner: {depth: 5}}\n")
    write(root, "wide", "lamp: {watts: 60, inner: {width: 9}}\n")
    write(root, "hall", "extends: [small, bright, wide]\nlamp: {names: [hall]}\n")
    profile = read_profile(root, "hall")
    assert profile.values["lamp"] == {
        "watts": 60,
        "inner": {"depth": 5, "width": 9},
        "names": ["hall"],
    }
    assert profile.origins[("lamp", "watts")] == "conf/wide.yaml"
    assert profile.origins[("lamp", "inner", "depth")] == "conf/bright.yaml"
    assert profile.files[-1] == "conf/hall.yaml"


def test_a_section_is_like_another(root):
    text = RUN + "lamp: {watts: 9, inner: {depth: 5}}\nspare: {like: lamp, inner: {width: 2}}\n"
    (root / "params.yaml").write_text(text.replace("{seed", "{profile: small, seed"))
    params = read_params(root, ["lamp", "spare"])
    assert params.config(SPARE) == LampConfig(watts=9, inner=Inner(depth=5, width=2))
    wrong = Params({"lamp": {}, "spare": {"like": "lump"}}, "lamp: {}\nspare: {like: lump}\n")
    with pytest.raises(ValueError, match=r"params.yaml:2: spare.like: expected .*got 'lump'"):
        wrong.config(SPARE)


def test_edits_are_distinguished_from_the_profile(root):
    write(root, "bright", "extends: small\nlamp: {watts: 100, names: [a]}\n")
    path = write_profile(root, "bright", [LAMP])
    profile = with_name(read_profile(root, "bright"))
    assert edits(profile, read_params(root, ["lamp"]).written) == []
    path.write_text(path.read_text().replace("watts: 100", "inner: {depth: 8}"))
    found = edits(profile, read_params(root, ["lamp"]).written)
    assert {edit.place: (edit.value, edit.profile_value) for edit in found} == {
        ("lamp", "watts"): (NOT_SET, 100),
        ("lamp", "inner", "depth"): (8, NOT_SET),
    }
    assert str(found[0]) == "lamp.watts: not set (profile: 100)"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            "lamp:\n  wats: 3",
            r"^conf/wrong.yaml:3: lamp.wats: unknown key; allowed: watts, ",
        ),
        ("lamp: {inner: {deep: 3}}", r"wrong.yaml:2: lamp.inner.deep: .*; allowed: depth, width$"),
        ("lamp: {watts: many}", r"^conf/wrong.yaml:2: lamp.watts: .*valid number.*got 'many'$"),
        ("lamp: {watts: .nan}", r"^conf/wrong.yaml:2: lamp.watts: .*finite number, got nan$"),
        ("lump: {}", r"^conf/wrong.yaml:2: unknown section 'lump'; allowed: .*lamp"),
        ("lamp: [1]", r"^conf/wrong.yaml:2: section 'lamp': expected keys with values"),
        ("lamp: {watts: 1, watts: 2}", r"^conf/wrong.yaml:2: the key 'watts' is given twice$"),
        ("lamp: {watts: [1", r"^conf/wrong.yaml:3: did not find expected"),
    ],
)
def test_what_is_wrong_in_a_profile_is_named_on_one_line(root, profile, message):
    write(root, "wrong", f"extends: small\n{profile}")
    with pytest.raises(ValueError, match=message) as error:
        profile_params(root, "wrong", [LAMP])
    assert "\n" not in str(error.value)


def test_profiles_do_not_extend_each_other_in_a_circle(root):
    write(root, "a", "extends: b")
    write(root, "b", "extends: [small, a]")
    with pytest.raises(ValueError, match=r"extend each other: a -> b -> a"):
        read_profile(root, "a")
    with pytest.raises(FileNotFoundError, match=r"no such profile; there are a, b, "):
        read_profile(root, "large")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lump: {}\n", r"^params.yaml:2: unknown section 'lump'; allowed: lamp, run"),
        ("", r"^params.yaml: missing sections \['lamp'\]; add each, as `lamp: {}`"),
        ("lamp: {}\nlamp: {}\n", r"^params.yaml:3: the key 'lamp' is given twice"),
        ("lamp: {watts: \x00}", r"^params.yaml: not YAML: unacceptable character"),
        ("lamp: 3", r"^params.yaml:2: section 'lamp': expected keys with values"),
    ],
)
def test_wrong_sections_of_params_yaml_are_named(root, text, message):
    with pytest.raises(ValueError, match=message):
        params_of(RUN + text, root)


def test_wrong_values_of_params_yaml_are_named_with_their_lines(root):
    params = params_of(RUN + "lamp:\n  watts: many\n  inner:\n    depth: .inf\n", root)
    with pytest.raises(ValueError, match=r"^params.yaml:3: lamp.watts: .*; params.yaml:5: lamp.in"):
        params.config(LAMP)
    with pytest.raises(ValueError, match=r"^params.yaml:1: run.profile: Field required"):
        params.run  # noqa: B018
    with pytest.raises(ValueError, match=r"no value for lamp.volts, a param in dvc.yaml"):
        params.subset(["lamp.volts"])


@pytest.mark.parametrize("profile", ["demo", "research"])
@pytest.mark.parametrize(
    ("change", "new", "added"),
    [
        ("trained_model.fit.epochs=3", "    epochs: 3", 1),
        ("run.num_shards=99", "  num_shards: 99", 1),
        ("++labels.file=no", "  file: no", 1),
        ("+benchmark.batch_size=4", "  batch_size: 4", 2),
        ("+trained_model_exact.limits.min_inside=1e-6", "    min_inside: 1e-06", 2),
    ],
)
def test_dvc_changes_one_line_and_the_value_arrives(tmp_path, profile, change, new, added):
    """Like `dvc exp run -S`; a part that had no value yet needs a line for its name as well."""
    text = profile_params(ROOT, profile, STAGES.values()).text
    path = tmp_path / "params.yaml"
    path.write_text(text)
    apply_overrides(str(path), [change])
    lines = difflib.ndiff(text.splitlines(), path.read_text().splitlines())
    plus = [line[2:] for line in lines if line.startswith("+ ")]
    assert len(plus) == added
    assert plus[-1] == new
    key, value = change.lstrip("+").split("=")
    found = Params(parse_yaml(path.read_text()), "").subset([key])[key]
    assert str(found) == value.replace("1e-6", "1e-06")
