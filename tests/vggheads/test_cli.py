"""One command line for a checkout and for an installed library; quick, and quiet when cut off."""

import argparse
import resource
import subprocess
import sys

import pytest

from dagster_project import cli as project
from vggheads import cli

PYTHON = [sys.executable, "-m", "vggheads.cli"]


def names(parser):
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return set(action.choices)


def test_help_is_quick_and_imports_no_library():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*PYTHON, "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "detect heads" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4
    code = (
        "import sys; from dagster_project.cli import _parser; _parser();"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "torch", "cv2", "pydantic", "yaml", "dagster", "dvc", "mlflow"}
    assert "vggheads" in loaded.stdout
    assert not {name for name in heavy if f"'{name}'" in loaded.stdout}


def test_what_is_missing_is_said_before_anything_heavy_is_imported(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"")
    for arguments, message in (
        (["predict", "nowhere.jpg"], "no such file or folder: nowhere.jpg"),
        (["predict", str(photo), "--checkpoint", "none"], "none: no such file or folder; name a"),
        (["export", "model.onnx", "--checkpoint", "none"], "none: no such file or folder; name a"),
        (["app", "--checkpoint", "none"], "none: no such file or folder; name a"),
    ):
        code = (
            f"import sys; from vggheads.cli import main; status = main({arguments!r});"
            "print(status, 'numpy' in sys.modules or 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["2", "False"]
        assert message in done.stderr


def test_a_reader_that_has_enough_ends_the_command_quietly():
    code = (
        "import sys; from vggheads.cli import run;"
        "sys.exit(run(lambda: [print('x' * 99) for _ in range(9999)] and 0))"
    )
    command = f'{sys.executable} -c "{code}" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["x" * 99, "141"]


def test_the_installed_library_says_where_the_project_s_commands_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.library_main(["status"]) == 2
    assert f"and {tmp_path} is in none; get a checkout" in capsys.readouterr().err
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert cli.library_main(["profile", "smoke"]) == 2
    assert f"such as {tmp_path}; run `make install` there, then .venv/bin/vggheads profile" in (
        capsys.readouterr().err
    )


def test_a_checkout_has_the_library_s_commands_and_more():
    whole = names(project._parser())
    commands = argparse.ArgumentParser().add_subparsers()
    cli.add_library_commands(lambda name, run, text: commands.add_parser(name))
    assert {"predict", "score", "app"} <= set(commands.choices) < whole
    assert {"demo", "status", "compare"} <= whole - set(commands.choices)


def test_a_package_that_is_missing_is_named_with_its_extra(capsys):
    def needs(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name, extra in (("gradio", "app"), ("onnxruntime", "predict"), ("lightning", "pipeline")):
        assert cli.run(lambda name=name: needs(name)) == 2
        assert f"pip install 'vggheads[{extra}]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        cli.run(lambda: needs("ml.nothing"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libx.so: failed to map segment from shared object"),
        SystemError("error return without exception set"),
    ],
)
def test_a_process_without_memory_says_what_to_do(error, capsys):
    def lacks():
        raise error

    assert cli.run(lacks) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no memory is left")
    assert "fewer workers" in line
    assert "run the command again" in line


def test_other_faults_of_an_import_are_no_lack_of_memory():
    for error in (ImportError("cannot import name 'x'"), SystemError("unknown opcode")):
        with pytest.raises(type(error)):
            cli.run(lambda error=error: (_ for _ in ()).throw(error))
