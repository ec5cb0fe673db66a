"""The benchmarks start and print their tables; how large the metrics are is not tested."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "def main()" in path.read_text())
SMALLEST = {
    "dad_metrics": "--seconds 0 --stride 20",
    "flame_layer": "--threads 1 --seconds 0 --batches 2",
    "head_targets": "--threads 1 --seconds 0 --heads 2",
    "scan_metrics": "--points 200 --repeats 1",
    "teachers": "--random 4 --iterations 5 --noise 1",
    "throughput": "--device cpu --threads 1 --sizes nano --batches 2 --seconds 0 "
    "--runtimes torch onnxruntime",
    "training_labels": "64",
    "training_step": "--threads 1 --steps 1 --image-size 64 --batch 1 --heads 1",
    "world": "--images 8 --seed 3",
}


@pytest.fixture
def command(monkeypatch, open_head):
    """Run a benchmark's main in this process, as `python -m benchmarks.NAME` would."""

    def run(name: str, arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *arguments.split()])
        module = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(module, "build_open_head", lambda seed: open_head, raising=False)
        module.main()

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_explains_itself(command, capsys, name):
    with pytest.raises(SystemExit) as ended:
        command(name, "--help")
    assert ended.value.code == 0
    assert f"benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "arguments"), SMALLEST.items())
def test_prints_what_the_figures_belong_to_and_a_table(command, capsys, name, arguments):
    command(name, arguments)
    printed = capsys.readouterr().out
    for word in (
        "hardware:",
        "date:",
        "commit:",
        f"command:  python -m benchmarks.{name} {arguments}",
    ):
        assert word in printed
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_throughput_fills_the_paper_s_table_of_costs(command, capsys, tmp_path):
    from ml.benchmarks.paper import PAPER_TABLES
    from ml.benchmarks.tables import NOT_MEASURED, ModelResults, paper_grid, read_scores

    scores = {}
    for device, size in (("cpu", "nano"), ("cuda", "S")):
        if device == "cuda" and torch.cuda.is_available():
            continue
        command(
            "throughput",
            f"--device {device} --threads 1 --sizes {size} --batches 1 --seconds 0 "
            f"--output {tmp_path}",
        )
        name = {"S": "VGGHeads-S"}.get(size, size)
        scores[size] = read_scores(tmp_path / f"{name}.json")
        assert f"| {name} |" in capsys.readouterr().out
    rows = {
        size: paper_grid(PAPER_TABLES[8], [ModelResults(size, "ours", [one], {})]).rows[-1]
        for size, one in scores.items()
    }
    assert rows["nano"].cells[2].value > 0
    if "S" in rows:
        # the paper's own count of parameters; nothing to time without a GPU
        assert rows["S"].cells[0].text == "17,004,954"
        assert rows["S"].cells[1].value == pytest.approx(22.83, abs=0.01)
        assert rows["S"].cells[2].text == NOT_MEASURED


def test_throughput_times_lower_precision_on_the_same_heads():
    from ml.benchmarks.architectures import HEADS, finder, of_size

    model = of_size("nano")
    found = {p: finder(model, "torch", p, "cpu")(1)[0] for p in ("fp32", "bf16")}
    assert len(found["fp32"]) == HEADS
    assert len(found["bf16"]) > 0
    # another precision indeed: the scores are not the same to the last digit
    assert not set(found["fp32"].scores.tolist()) & set(found["bf16"].scores.tolist())
