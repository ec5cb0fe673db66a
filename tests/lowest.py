"""Find heads from the wheel, in an environment that has nothing else: `make lowest`.

    python -m tests.lowest --versions newest

Installs `vggheads[predict]` with the lowest versions that pyproject.toml allows, or the newest,
looks what came with it, and predicts an image with a finished run's detector, with both runtimes.
The first prediction, from a cold start, has a bound in seconds, meant for two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = {"dagster", "dvc", "great-expectations", "mlflow", "lightning", "transformers"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", choices=("lowest", "newest"), default="lowest")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "data" / "trained_model")
    parser.add_argument("--folder", type=Path, help="of the environment; build/<versions>")
    parser.add_argument("--seconds", type=float, default=6.0, help="for the first prediction")
    options = parser.parse_args()
    folder = options.folder or ROOT / "build" / options.versions
    shutil.rmtree(folder, ignore_errors=True)
    wheels = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w"]
    subprocess.run([*wheels, str(folder / "wheel")], check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    lowest = ["-c", str(ROOT / "requirements" / "lowest.txt")]
    install = [str(python), "-m", "pip", "install", "-q", f"{wheel}[predict]"]
    subprocess.run(install + (lowest if options.versions == "lowest" else []), check=True)
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json"], check=True, capture_output=True
    )
    names = {one["name"].lower(): one["version"] for one in json.loads(listed.stdout)}
    if found := sorted(ORCHESTRATORS & set(names)):
        raise SystemExit(f"an orchestrator was installed: {', '.join(found)}")
    say(f"{len(names)} packages, no orchestrator")
    image = ROOT / "docs" / "images" / "predictions.jpg"
    for words in ([], ["--runtime", "onnxruntime"], ["--draw", "--meshes"]):
        started = time.monotonic()
        command = [str(python.parent / "vggheads"), "predict", str(image), "--output", "out"]
        command += ["--checkpoint", str(options.checkpoint.resolve()), *words]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - started
        say(f"predict {' '.join(words)}: {seconds:.1f} s; {done.stdout.strip()}")
        if not json.loads((folder / "out" / "predictions" / "heads.json").read_text())["heads"]:
            raise SystemExit("no head was found")
        if not words and seconds > options.seconds:
            raise SystemExit(f"predict took {seconds:.1f} s, more than {options.seconds:g} s")
    return 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
