"""Captions before the name filter: drawn from the grammar, or written by a describer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ml.captions.config import CaptionsConfig
from ml.captions.grammar import ToneDeck, compose
from ml.captions.scene import NO_SCENE
from ml.poses.figure import looks_like_child
from ml.poses.skeleton import PoseSample
from ml.records.ids import sample_rng
from ml.records.tables import POSE_SOURCES, read_table
from ml.records.workspace import Workspace


class NoCaption(ValueError):
    """There is no description of a pose's source."""


@dataclass(frozen=True)
class Draft:
    """A caption and its metadata.

    Attributes:
        text: the caption.
        captioner: which captioner, with the version of its model where it has one.
        scene: the described scene as JSON, `NO_SCENE` for free text.
        tones: Monk tone of each person of the scene; empty for free text.
        subject_tones: tones of the subjects that the text describes, in order.
        names_person: whether the captioner named a person on purpose.
    """

    text: str
    captioner: str
    scene: str = NO_SCENE
    tones: tuple[int, ...] = ()
    subject_tones: tuple[int, ...] = ()
    names_person: bool = False


class Captioner(Protocol):
    """Drafts the caption of an image."""

    def draft(self, pose: PoseSample, rng: np.random.Generator) -> Draft:
        """Caption one image.

        Args:
            pose: the skeletons.
            rng: the image's generator.

        Returns:
            The draft.

        Raises:
            NoCaption: nothing is known of the pose's source.
        """
        ...


class GrammarCaptioner:
    """Draws scenes with evenly distributed skin tones over a shard."""

    def __init__(self, ws: Workspace, config: CaptionsConfig, stage: str, shard: str) -> None:
        """Shuffle the shard's deck of tones.

        Args:
            ws: the workspace.
            config: how scenes are described.
            stage: the stage's name, which seeds the deck.
            shard: likewise.
        """
        self._config = config
        self._deck = ToneDeck(sample_rng(ws.seed, stage, f"{shard}/tones"))

    def draft(self, pose: PoseSample, rng: np.random.Generator) -> Draft:
        """Draw a scene for the people of a pose and describe it.

        Args:
            pose: the skeletons.
            rng: the image's generator.

        Returns:
            The draft, with its scene.
        """
        tones = self._deck.deal(len(pose.people))
        joints = [person.joints_m for person in pose.people]
        caption = compose(
            rng,
            [one is not None and looks_like_child(one) for one in joints],
            tones,
            name_probability=self._config.name_probability,
            hat_probability=self._config.hat_probability,
            max_described=self._config.max_described,
        )
        return Draft(
            text=caption.text,
            captioner=self._config.captioner,
            scene=caption.scene.to_json(),
            tones=tuple(person.skin_tone for person in caption.scene.people),
            subject_tones=tuple(tones[index] for index in caption.described),
            names_person=caption.names_person,
        )


class SourceCaptioner:
    """Takes the neutral description that the poses stage kept of a source image."""

    def __init__(self, ws: Workspace, config: CaptionsConfig, stage: str, shard: str) -> None:
        """Read the shard's descriptions.

        Args:
            ws: the workspace.
            config: unused; descriptions are made in the poses stage.
            stage: unused.
            shard: the shard.
        """
        table = read_table(ws.table_path("poses", f"{shard}.sources"), POSE_SOURCES)
        self._rows = {str(row["pose_id"]): row for row in table.to_dict("records")}

    def draft(self, pose: PoseSample, rng: np.random.Generator) -> Draft:
        """Return the description of a pose's source.

        Args:
            pose: the skeletons.
            rng: unused.

        Returns:
            The draft, free text.

        Raises:
            NoCaption: the shard has no description of the pose.
        """
        row = self._rows.get(pose.pose_id)
        if row is None:
            raise NoCaption(f"{pose.pose_id}: no description of its source; remake poses")
        return Draft(text=str(row["description"]), captioner=str(row["captioner"]))


CAPTIONERS: dict[str, Callable[[Workspace, CaptionsConfig, str, str], Captioner]] = {
    "scene-grammar": GrammarCaptioner,
    "source": SourceCaptioner,
}
"""Captioners by the name that `CaptionsConfig.captioner` gives."""
