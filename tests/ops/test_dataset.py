"""The dataset's jobs: what they pass on, and how they fail."""

from dataclasses import dataclass, field

import dagster as dg

from ops.dataset import export_dataset_job, takedown_job


@dataclass
class Report:
    samples: tuple = ("image-a0",)
    left: tuple = ()
    stale: tuple = ("trained_model",)


@dataclass
class Takedown:
    report: Report = field(default_factory=Report)
    asked: list = field(default_factory=list)

    def __call__(self, samples, sources):
        self.asked.append((samples, sources))
        if samples == ["nobody"]:
            raise ValueError("takedown: no stage knows ['nobody']")
        return self.report


def run(job, key, value, op, **config):
    return job.execute_in_process(
        resources={key: dg.ResourceDefinition.hardcoded_resource(value)},
        run_config={"ops": {op: {"config": config}}},
        raise_on_error=False,
    )


def failure(result, op):
    return result.failure_data_for_node(op).user_failure_data.description


def test_takedown_succeeds_only_when_nothing_is_left():
    done = Takedown()
    result = run(takedown_job, "takedown", done, "take_down", samples=["image-a0"])
    assert result.success
    assert result.output_for_node("take_down") == 1
    assert done.asked == [(["image-a0"], [])]
    left = Takedown(Report(left=("mlruns/x: image-a0",)))
    result = run(takedown_job, "takedown", left, "take_down", sources=["pose"])
    assert not result.success
    assert failure(result, "take_down") == "still there:\nmlruns/x: image-a0"
    result = run(takedown_job, "takedown", Takedown(), "take_down", samples=["nobody"])
    assert "no stage knows ['nobody']" in failure(result, "take_down")


class Project:
    class params:  # noqa: N801, as the pipeline's attribute
        values = {"filtered_dataset": {"facts": {"parents": ["flame-2020"]}}}  # noqa: RUF012

    def workspace(self):
        raise AssertionError("a forbidden export reads nothing")


def test_an_export_that_a_licence_forbids_fails_with_its_name(tmp_path):
    config = {"format": "coco", "target": str(tmp_path / "out")}
    project = Project()
    project.workspace = lambda: None
    result = run(export_dataset_job, "project", project, "export_dataset", **config)
    assert "forbidden by flame-2020" in failure(result, "export_dataset")
    assert not (tmp_path / "out").exists()
