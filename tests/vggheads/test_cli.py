"""One command line for a checkout and for an installed library; quick, and quiet when cut off."""

import argparse
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_project import cli as project
from vggheads import cli
from vggheads.commands import HEADINGS, CommandLine

PYTHON = [sys.executable, "-m", "vggheads.cli"]


def commands(parser):
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_help_is_quick_and_imports_no_library():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*PYTHON, "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "detect heads" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4
    code = (
        "import sys; from dagster_project.cli import _command_line; _command_line();"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {
        "numpy",
        "pandas",
        "torch",
        "cv2",
        "pydantic",
        "yaml",
        "dagster",
        "dvc",
        "mlflow",
        "shtab",
    }
    assert "vggheads" in loaded.stdout
    assert not {name for name in heavy if f"'{name}'" in loaded.stdout}


def test_every_command_is_listed_under_its_heading():
    parser = project._command_line().parser
    listed, heading = {}, ""
    for line in parser.format_help().splitlines():
        if found := re.fullmatch(r"  (\w.*):", line):
            heading = found[1]
        elif found := re.match(r"    ([a-z-]+)( |$)", line):
            listed.setdefault(heading, []).append(found[1])
    assert {heading: tuple(found) for heading, found in listed.items()} == HEADINGS
    assert sorted(sum(HEADINGS.values(), ())) == sorted(commands(parser))


def test_a_command_without_a_heading_is_refused():
    with pytest.raises(ValueError, match="command sing: add it to a heading"):
        CommandLine("").add("sing", print, "sing")


def test_options_of_one_name_are_the_same_everywhere():
    """`--json` prints on stdout; a file or folder to write is `--output`."""
    printing = set()
    for name, command in commands(project._command_line().parser).items():
        options = {word: a for a in command._actions for word in a.option_strings}
        if "--json" in options:
            assert options["--json"].nargs == 0, name
            printing.add(name)
        if "--output" in options:
            assert options["--output"].type is Path, name
        assert not options.keys() & {"--out", "--output-file", "--output-dir"}, name
    assert printing == {
        "benchmark", "check", "compare", "config", "doctor", "generation-quality", "plan",
        "preflight", "score", "status",
    }  # fmt: skip


def test_bash_completes_commands_options_stages_and_files(tmp_path):
    done = subprocess.run(
        [*PYTHON, "completion", "bash"], capture_output=True, text=True, check=True
    )
    (tmp_path / "script").write_text(done.stdout)
    (tmp_path / "photo.jpg").write_bytes(b"")
    ask = """source ./script
for line in "vggheads mat" "vggheads check images cap" "vggheads status --j" "vggheads predict ph"
do COMP_WORDS=($line); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_shtab_vggheads vggheads "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; echo "${COMPREPLY[@]}"
done"""
    said = subprocess.run(
        ["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["materialize", "captions", "--json", "photo.jpg"], (
        said.stderr
    )


def test_the_library_has_a_script_for_zsh(capsys):
    assert cli.library_main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef vggheads")
    assert "predict:" in script
    assert "materialize" not in script


HERE = "README.md"
MISSING = [
    ["predict", "none"],
    ["predict", HERE, "--checkpoint", "none"],
    ["predict", HERE, "--checkpoint", HERE, "--head-model", "none"],
    ["export", "model.onnx", "--checkpoint", "none"],
    ["app", "--checkpoint", "none"],
    ["import-weights", "none", "out"],
    ["import-flame", "none", "--landmarks", HERE],
    ["import-flame", HERE, "--landmarks", "none"],
    ["import-flame", HERE, "--landmarks", HERE, "--indices", "none"],
    ["score", "fddb", "--truth", "none", "--predictions", HERE, "--output", "out"],
    ["score", "fddb", "--truth", HERE, "--predictions", "none", "--output", "out"],
    ["benchmark", "fddb", "--data", "none", "--model", HERE],
    ["benchmark", "fddb", "--data", HERE, "--model", "none"],
    ["generation-quality", HERE, "--reference", "none", "--inception", HERE],
    ["generation-quality", "own=none", "--reference", HERE, "--inception", HERE],
    ["import-official", HERE, "none", "out"],
    ["label-import", "none"],
]


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_what_is_missing_is_said_before_anything_heavy_is_imported(arguments):
    code = (
        f"import sys; from vggheads.cli import main; status = main({arguments!r});"
        "print(status, {'numpy', 'torch', 'pydantic', 'dagster'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "set()"]
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: (none: no such file or folder|.*no such file or folder: none)", line)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image, something that looks like a model, and an empty folder."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("photo.jpg", "model/config.json", "empty/note.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    return folder


PHOTO = ["predict", "photo.jpg", "--checkpoint", "model"]
WRONG = [
    (["predict", "photo.jpg", "--checkpoint", "empty"], "empty/config.json: no such file; is this"),
    (["predict", "empty", "--checkpoint", "model"], "empty: no images in this folder; looked for"),
    (["predict", "ftp://x.org/a.jpg"], "ftp://x.org/a.jpg: of addresses, s3://, https:// and"),
    ([*PHOTO, "--score", "3"], "--score: expected 0 to 1, got 3.0"),
    ([*PHOTO, "--iou", "-1"], "--iou: expected 0 to 1, got -1.0"),
    ([*PHOTO, "--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
    ([*PHOTO, "--crops", "-3"], "--crops: expected at least 0, got -3"),
    ([*PHOTO, "--frames", "0"], "--frames: expected at least 1, got 0"),
    ([*PHOTO, "--output", "photo.jpg"], "--output photo.jpg is a file; name a folder"),
    (["app", "--checkpoint", "model", "--port", "99999"], "--port: expected 1 to 65535, got 99999"),
    (["app", "--checkpoint", "empty"], "empty/config.json: no such file"),
    (["predicct", "photo.jpg"], "no command 'predicct'; did you mean predict? `vggheads --help`"),
    (["materialize", "imagess"], "materialize: no stage imagess; there are head_model, poses, "),
    (["check", "images", "imagess"], "check: no stage imagess; there are head_model, poses, "),
    (["profile", "demmo"], "demmo.yaml: no such profile; there are ablation_no_rotation, "),
    (["study", "seed"], "study: expected one of ablation, datasets, "),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_said_before_anything_heavy_is_imported(arguments, message, place):
    code = (
        f"import sys; from vggheads.cli import main; status = main({arguments!r});"
        "print(status, {'torch', 'dagster', 'gradio'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(cli.HOME)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "set()"]
    (line,) = done.stderr.splitlines()
    assert message in line
    assert "['" not in line


def test_a_port_that_is_taken_is_named_before_the_detector_is_loaded(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.library_main(["app", "--checkpoint", "model", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use); choose another" in (
        capsys.readouterr().err
    )


def test_a_folder_in_which_nobody_may_write_is_named(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    # The superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != place)
    assert cli.library_main([*PHOTO, "--output", "new/out"]) == 2
    assert f"no permission to write in {place}; name another folder" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys):
    with pytest.raises(SystemExit, match="2"):
        project.main([])
    assert "detect heads" in capsys.readouterr().err


NOT_READ = {
    *("--output", "output", "target"),
    # Have a default; their commands look whether it is there.
    *("--checkpoint",),
}


def test_every_path_that_a_command_reads_is_checked_when_it_is_parsed():
    unchecked = {
        (action.option_strings or [action.dest])[0]
        for parser in commands(project._command_line().parser).values()
        for action in parser._actions
        if action.type is Path
    }
    assert unchecked == NOT_READ


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
    whole = set(commands(project._command_line().parser))
    library = argparse.ArgumentParser().add_subparsers()
    cli.add_library_commands(lambda name, run, text: library.add_parser(name))
    assert {"predict", "score", "app"} <= set(library.choices) < whole
    assert {"demo", "status", "compare"} <= whole - set(library.choices)


def test_a_package_that_is_missing_is_named_with_its_extra(capsys):
    def needs(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name, extra in (
        ("gradio", "app"),
        ("onnxruntime", "predict"),
        ("shtab", "completion"),
        ("lightning", "pipeline"),
    ):
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
