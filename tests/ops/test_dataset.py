"""The dataset's jobs: their arguments and failures."""

from ml.records.report import StageReport
from ops.dataset import export_dataset_job, fine_tune_job, takedown_job
from ops.resources import CommandFailed, Dataset, FineTuning, Removed, Takedown


class TakedownOf(Takedown):
    left: list[str] = []  # noqa: RUF012, a field of the resource

    def remove(self, samples, sources):
        if samples == ["nobody"]:
            raise ValueError("takedown: no stage knows ['nobody']")
        assert (list(samples), list(sources)) in ((["image-a0"], []), ([], ["pose"]))
        return Removed(("image-a0",), ("trained_model",), tuple(self.left))


def run(job, key, value, op, **config):
    return job.execute_in_process(
        resources={key: value},
        run_config={"ops": {op: {"config": config}}},
        raise_on_error=False,
    )


def failure(result, op):
    return result.failure_data_for_node(op).user_failure_data.description


def test_takedown_succeeds_only_when_nothing_is_left():
    result = run(takedown_job, "takedown", TakedownOf(), "take_down", samples=["image-a0"])
    assert result.success
    assert result.output_for_node("take_down") == 1
    left = TakedownOf(left=["mlruns/x: image-a0"])
    result = run(takedown_job, "takedown", left, "take_down", sources=["pose"])
    assert not result.success
    assert failure(result, "take_down") == "still there:\nmlruns/x: image-a0"
    result = run(takedown_job, "takedown", TakedownOf(), "take_down", samples=["nobody"])
    assert "no stage knows ['nobody']" in failure(result, "take_down")


class Project(Dataset):
    def values(self):
        return {"filtered_dataset": {"metadata": {"parents": ["flame-2020"]}}}

    def workspace(self):
        return None


def test_an_export_that_a_licence_forbids_fails_with_its_name(tmp_path):
    config = {"format": "coco", "target": str(tmp_path / "out")}
    result = run(export_dataset_job, "dataset", Project(), "export_dataset", **config)
    assert "forbidden by flame-2020" in failure(result, "export_dataset")
    assert not (tmp_path / "out").exists()


def test_an_export_has_the_splits_and_numbers_that_were_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "ml.release.export.export_dataset",
        lambda workspace, request: asked.append(request) or StageReport(num_in=1, num_out=1),
    )
    config = {"format": "coco", "target": str(tmp_path / "out")}
    for more in ({}, {"splits": ["val"], "derive": ["landmarks", "euler"]}):
        assert run(export_dataset_job, "dataset", Project(), "export_dataset", **config, **more)
    assert [(list(one.splits), list(one.derived)) for one in asked] == [
        (["train", "val", "test"], []),
        (["val"], ["landmarks", "euler"]),
    ]


class OwnBoxes(FineTuning):
    def run(self, images, boxes, labels):
        if not labels:
            raise CommandFailed("boxes.json: none of its categories ['Kopf'] is one of ['head']")
        return images / boxes / "_".join(labels)


def test_fine_tuning_gives_the_report_or_what_the_command_said():
    op, given = "fine_tune_on_own_boxes", {"images": "photos", "boxes": "boxes.json"}
    result = run(fine_tune_job, "fine_tuning", OwnBoxes(), op, **given, labels=["Kopf"])
    assert result.output_for_node(op) == "photos/boxes.json/Kopf"
    result = run(fine_tune_job, "fine_tuning", OwnBoxes(), op, **given)
    assert not result.success
    assert failure(result, op).startswith("boxes.json: none of its categories")
