"""Which trainings the screenshot of MLflow's comparison shows."""

from types import SimpleNamespace

import pytest

from docs.figures import NothingToShow, comparable


def training(stage, **metrics):
    tags = {"dvc.stage": stage} if stage else {}
    return SimpleNamespace(data=SimpleNamespace(tags=tags, metrics=metrics))


def test_two_trainings_of_one_model_are_compared():
    scored = {"benchmark/ap50": 0.8}
    newest, older = training("trained_model", **scored), training("trained_model", **scored)
    other, unscored = training("head_detector"), training("trained_model")
    assert comparable([other, unscored, newest, other, older]) == [newest, older]
    assert comparable([other, unscored, newest, other]) == [unscored, newest]
    assert comparable([newest, other, other]) == [other, other]


@pytest.mark.parametrize("stages", [[], ["trained_model", "head_detector", None, None]])
def test_without_two_of_one_model_the_command_that_makes_them_is_named(stages):
    with pytest.raises(NothingToShow, match=r"`vggheads study seeds` trains the detector with two"):
        comparable([training(stage) for stage in stages])
