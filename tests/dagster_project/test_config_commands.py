"""`vggheads config`, `profile` and what `status` says about values."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dagster_project.cli import main
from dagster_project.config_commands import edit_lines
from dagster_project.pipeline import Pipeline
from ml.records.config import StageConfig
from tests.fixtures.toy_project import edit_params


class LampConfig(StageConfig):
    """A lamp."""

    watts: float = 40.0
    """Power, watts."""
    colour: str = "white"
    """Of the light."""


CONFIG = SimpleNamespace(name="lamp", config_class=lambda: LampConfig)
SPARE = SimpleNamespace(name="spare", config_class=lambda: LampConfig)
RUN = "run: {seed: 1, num_shards: 2, shard_size: 3, workers: 1, threads: 1}\n"


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "small.yaml").write_text(
        RUN + "lamp: {watts: 9}\nspare: {like: lamp, colour: red}\n"
    )
    (tmp_path / "conf" / "dark.yaml").write_text("extends: small\nlamp: {watts: 1}\n")
    project = Pipeline(tmp_path, {"lamp": CONFIG, "spare": SPARE})
    assert main(["profile", "dark"], project) == 0
    return project


def test_config_says_where_each_value_comes_from(pipeline, capsys):
    edit_params(pipeline.root, "seed: 1", "seed: 5")
    capsys.readouterr()
    assert main(["config", "--explain"], pipeline) == 0
    shown = capsys.readouterr().out
    assert "profile dark; 1 edits in params.yaml" in shown
    assert "  seed: 5  [edit; profile: 1]\n" in shown
    assert "  watts: 1.0  [conf/dark.yaml]\n      Power, watts.\n" in shown
    assert "  colour: 'white'  [default]\n" in shown
    spare = shown[shown.index("spare:") :]
    assert "  watts: 1.0  [conf/dark.yaml, as lamp]\n" in spare
    assert "  colour: 'red'  [conf/small.yaml]\n" in spare
    assert main(["config", "lump"], pipeline) == 2
    assert "config: no stage lump; there are" in capsys.readouterr().err


def test_edits_are_kept_until_somebody_agrees_to_lose_them(pipeline, capsys, monkeypatch):
    assert edit_lines(pipeline) == ["profile dark"]
    edit_params(pipeline.root, "watts: 1", "watts: 3")
    assert edit_lines(pipeline) == [
        "profile dark with 1 edits in params.yaml:",
        "  lamp.watts: 3 (profile: 1)",
    ]
    before = (pipeline.root / "params.yaml").read_text()
    capsys.readouterr()
    assert main(["profile", "small"], pipeline) == 1
    told = capsys.readouterr()
    assert "would overwrite lamp.watts: 3 (profile: 1)" in told.out
    assert "--force" in told.err
    assert (pipeline.root / "params.yaml").read_text() == before
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(["profile", "small"], pipeline) == 1
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(["profile", "small"], pipeline) == 0
    assert pipeline.params.run.profile == "small"


def test_a_params_yaml_that_cannot_be_read_is_not_overwritten_unasked(pipeline, capsys):
    path = pipeline.root / "params.yaml"
    path.write_text("run: {seed: 1, seed: 2}\n")
    assert main(["profile", "small"], pipeline) == 1
    assert "params.yaml cannot be read: params.yaml:1: the key 'seed'" in capsys.readouterr().out
    assert main(["config"], pipeline) == 2
    assert capsys.readouterr().err == "error: params.yaml:1: the key 'seed' is given twice\n"
    assert main(["profile", "small", "--force"], pipeline) == 0


def test_a_profile_that_conf_does_not_hold_is_said(pipeline, capsys):
    edit_params(pipeline.root, "profile: dark", "profile: mine")
    assert edit_lines(pipeline) == ["profile mine, which conf/ does not hold"]
    assert main(["profile", "small"], pipeline) == 1
    assert "names 'mine', which conf/ does not hold" in capsys.readouterr().out
