"""`vggheads compare`: differences between two runs, found by id, prefix or name."""

import json

import pytest

from dagster_project.comparing import compare_runs
from dagster_project.resources import run_name
from ml.training.tracking import mlflow_run


@pytest.fixture(scope="module")
def store(mlflow_folder):
    for name, epochs, score in (("first", 3, 0.8), ("second", 5, 0.9)):
        with mlflow_run(mlflow_folder, "compared", name) as tracker:
            tracker.log_params(
                {"fit.epochs": epochs, "seed": 1, **({"only": 2} if epochs > 3 else {})}
            )
            tracker.log_metrics({"ap50": score, "ap50_low": score - 0.1, "ap50_high": score + 0.05})
            tracker.log_metrics({f"of_{name}": 1.0, "floor_low": 2.0})
    return mlflow_folder


def test_parameters_that_differ_and_metrics_with_intervals(store):
    found = compare_runs(store, "first", "second")
    assert found.params == {"fit.epochs": ("3", "5"), "only": (None, "2")}
    assert found.metrics == {
        "ap50": ("0.8 [0.7, 0.85]", "0.9 [0.8, 0.95]"),
        "floor_low": ("2", "2"),
        "of_first": ("1", "-"),
        "of_second": ("-", "1"),
    }
    text = "\n".join(found.lines())
    assert "parameters that differ" in text
    assert "seed" not in text
    assert json.loads(json.dumps(found.as_json()))["params"]["only"] == [None, "2"]
    by_id = found.names[0].rpartition("(")[2].rstrip(")")
    assert compare_runs(store, by_id, "second").params == found.params


def test_missing_runs_and_one_run_twice_are_reported(store, tmp_path):
    with pytest.raises(
        ValueError, match=r"no run 'third'; the newest are \w{8} second; \w{8} first"
    ):
        compare_runs(store, "first", "third")
    with pytest.raises(ValueError, match="are the same run"):
        compare_runs(store, "first", "first")
    with pytest.raises(FileNotFoundError, match="no trainings yet"):
        compare_runs(tmp_path, "first", "second")


def test_a_run_is_called_after_what_somebody_changed(monkeypatch):
    from dagster_project import resources
    from dagster_project.profiles import NOT_SET, Edit
    from dagster_project.stages import project

    pipeline = project()
    profile = pipeline.params.run.profile
    monkeypatch.setattr(resources, "edits", lambda *_: [])
    assert run_name(pipeline, "trained_model") == f"trained_model {profile}"
    changed = [
        Edit(("images", "fps"), 1, 2), Edit(("trained_model", "fit", "epochs"), 3, 9),
        Edit(("run", "seed"), NOT_SET, 9), Edit(("trained_model", "a"), 1, 2),
        Edit(("trained_model", "b"), 1, 2),
    ]  # fmt: skip
    monkeypatch.setattr(resources, "edits", lambda *_: changed)
    assert run_name(pipeline, "trained_model") == (
        f"trained_model {profile} fit.epochs=3 seed=default a=1 +1"
    )
