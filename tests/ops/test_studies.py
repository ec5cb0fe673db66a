"""Jobs of studies pass on their arguments, and fail with the study's own message."""

from pathlib import Path

import pytest

from ops.resources import Dataset, ModelStore
from ops.studies import STUDY_JOBS

GIVEN = {
    "ablation_job": ("ablation", "ablate_losses", {}),
    "seeds_job": ("seeds", "repeat_training", {}),
    "dataset_comparison_job": ("datasets", "compare_datasets", {"wider": "/sets/wider"}),
    "wider_finetuning_job": ("finetuning", "finetune_on_wider", {"wider": "/sets/wider"}),
    "generator_comparison_job": (
        "generators",
        "compare_generators",
        {"generators": "g.yaml", "reference": "real", "inception": "i.pth", "reference_limit": 5},
    ),
    "architectures_job": ("architectures", "measure_architectures", {"config": "a.yaml"}),
    "memorisation_job": (
        "memorisation",
        "study_memorisation",
        {"photographs": "rafd", "config": "m.yaml"},
    ),
}


class Data(Dataset):
    def workspace(self):
        return "workspace"

    def values(self):
        return {"section": {}}


class Store(ModelStore):
    @property
    def runs_folder(self):
        return Path("/runs")

    @property
    def tracking_uri(self):
        raise AssertionError("a study asks for the store's folder")


def execute(job, op, config, **options):
    return job.execute_in_process(
        resources={"dataset": Data(), "mlflow": Store()},
        run_config={"ops": {op: {"config": config}}} if config else {},
        **options,
    )


@pytest.mark.parametrize("job", STUDY_JOBS, ids=lambda job: job.name)
def test_a_job_runs_its_study(job, monkeypatch):
    name, op, config = GIVEN[job.name]
    called = []

    def run_study(*arguments, **given):
        called.append((arguments, given))
        return Path("/tables")

    monkeypatch.setattr("ml.studies.running.run_study", run_study)
    assert execute(job, op, config).output_for_node(op) == "/tables"
    ((arguments, given),) = called
    assert arguments == (name, "workspace", {"section": {}}, Path("/runs"))
    assert {key: str(value) for key, value in given.items()} == {
        key: str(value) for key, value in config.items()
    }


def test_a_job_fails_with_the_study_s_words(monkeypatch):
    def run_study(*arguments, **given):
        raise ValueError("datasets: name the folder of WIDER FACE")

    monkeypatch.setattr("ml.studies.running.run_study", run_study)
    job = next(job for job in STUDY_JOBS if job.name == "dataset_comparison_job")
    result = execute(job, "compare_datasets", {"wider": ""}, raise_on_error=False)
    failure = result.failure_data_for_node("compare_datasets").user_failure_data
    assert failure.description == "datasets: name the folder of WIDER FACE"
