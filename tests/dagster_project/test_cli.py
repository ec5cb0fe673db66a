"""The command line dispatches: the pipeline's commands and those of a detector."""

import sys

import pytest

from dagster_project import cli
from ml.inference import cli as inference


def test_every_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for name in (
        "demo",
        "predict",
        "export",
        "import-weights",
        "import-flame",
        "export-head-model",
        "bench",
        "app",
    ):
        assert f"\n    {name} " in shown or f"\n    {name}\n" in shown


def test_what_a_command_refuses_becomes_one_line(capsys, tmp_path):
    missing = str(tmp_path / "nothing")
    assert cli.main(["predict", str(tmp_path), "--checkpoint", missing]) == 2
    assert "error:" in capsys.readouterr().err
    assert cli.main(["bench", "nonsense"]) == 2
    error = capsys.readouterr().err
    assert "bench: no benchmark nonsense; there are dad_metrics, flame_layer, " in error
    assert "inference" in error


def test_declaring_the_commands_imports_nothing_heavy():
    import subprocess

    code = "import sys; from ml.inference import cli; print(','.join(sys.modules))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(",")
    heavy = {"torch", "onnxruntime", "onnx", "gradio", "trimesh", "cv2"}
    assert not {name.split(".")[0] for name in loaded} & heavy
    assert inference.DEFAULT_CHECKPOINT == "data/trained_model"
