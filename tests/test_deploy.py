"""Image and composition match the project, as far as that shows without a registry."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


def composition():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_the_image_copies_what_is_there_and_installs_what_is_declared():
    text = (DOCKER / "Dockerfile").read_text()
    copied = re.findall(r"(?m)^COPY --chown=vggheads (.+)$", text)
    sources = [name for line in copied for name in line.split()[:-1]]
    assert {"pyproject.toml", "setup.py", "ml", "vggheads", "dagster_project"} <= set(sources)
    assert [name for name in sources if not (ROOT / name).exists()] == []
    project = (ROOT / "pyproject.toml").read_text()
    (extras,) = re.findall(r'--editable "\.\[([\w,]+)\]"', text)
    for extra in extras.split(","):
        assert re.search(rf"(?m)^{extra} = \[", project), extra
    (torch,) = re.findall(r"torch==[\d.]+", text)
    assert f'"{torch}"' in project
    assert "USER vggheads" in text


def test_ignored_by_the_image_is_what_a_run_makes():
    ignored = set((DOCKER / "Dockerfile.dockerignore").read_text().split())
    made = {
        line.strip("/").removesuffix("/*")
        for line in (ROOT / ".gitignore").read_text().splitlines()
        if line.startswith("/") and "lightning" not in line
    }
    assert {"data", "mlruns", "docker/.env"} <= made
    assert made <= ignored


def test_every_service_runs_something_that_exists_and_listens_here_alone():
    services = composition()["services"]
    assert set(services) == {"postgres", "minio", "webserver", "reports", "daemon", "mlflow"}
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to others"
        words = shlex.split(service.get("command", ""))
        if words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None, words[2]
        elif words and words[0] != "server":
            assert find_spec(words[0]) is not None, words[0]


def test_passwords_come_from_outside_and_the_names_fit():
    text = (DOCKER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == {"POSTGRES_PASSWORD", "MINIO_PASSWORD"}
    assert set(re.findall(r"\$\{(\w+)", text)) == asked, "a password has a default"
    deploy = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"{name}=" in deploy for name in asked)
    home = yaml.safe_load((DOCKER / "home" / "dagster.yaml").read_text())
    variable = home["storage"]["postgres"]["postgres_url"]["env"]
    environment = composition()["services"]["webserver"]["environment"]
    assert environment[variable].startswith("postgresql+psycopg2://dagster:")
    assert environment["DAGSTER_HOME"] == "/project/docker/home"


def test_dagster_is_configured_there_as_here():
    from dagster_project.env import _DAGSTER_YAML

    home = yaml.safe_load((DOCKER / "home" / "dagster.yaml").read_text())
    here = yaml.safe_load(_DAGSTER_YAML)
    assert {**home, "storage": None} == {**here, "storage": None}
