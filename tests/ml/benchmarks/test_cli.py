"""The commands on public sets: tables for people, `--json` on stdout, files with `--output`."""

import argparse
import json

import numpy as np
import pytest

from ml.benchmarks import cli
from ml.benchmarks.predictions import HeadPredictions, open_predictions
from tests.benchmark_sets.poses import AFLW_HEADS, write_aflw2000


@pytest.fixture
def run(tmp_path):
    """Run `score` or `benchmark` on AFLW2000-3D with perfect predictions."""
    write_aflw2000(tmp_path / "set")
    with open_predictions(tmp_path / "p.jsonl", "x") as writer:
        for name, angles in AFLW_HEADS.items():
            writer.add(name, HeadPredictions(euler_deg=np.array([angles])))
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()

    def add(name, function, text):
        sub = commands.add_parser(name)
        sub.set_defaults(command=function)
        return sub

    cli.add_commands(add)

    def call(command, *words):
        data, predictions = str(tmp_path / "set"), str(tmp_path / "p.jsonl")
        given = {
            "score": ["--truth", data, "--predictions", predictions],
            "benchmark": ["--data", data, "--model", predictions],
        }[command]
        options = parser.parse_args([command, "aflw2000", *given, *words])
        assert options.command(options) == 0

    return call


@pytest.mark.parametrize("command", ["score", "benchmark"])
def test_scores_are_printed_as_a_table_or_as_json_and_written(command, run, tmp_path, capsys):
    run(command)
    assert "yaw_mae_deg " in capsys.readouterr().out
    run(command, "--json", "--output", str(tmp_path / "out"))
    printed = json.loads(capsys.readouterr().out)
    assert printed["yaw_mae_deg"] == pytest.approx(0, abs=1e-4)
    assert printed["set"] == "aflw2000"
    file = tmp_path / "out" if command == "score" else tmp_path / "out" / "scores.json"
    assert json.loads(file.read_text()) == printed
