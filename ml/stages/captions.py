"""Stage `captions`: a caption and a prompt for each image of a shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ml.captions.config import CaptionsConfig, GlinerConfig
from ml.captions.drafts import CAPTIONERS, Captioner, Draft, NoCaption
from ml.captions.names import GazetteerNameDetector, NameDetector, NameSpan
from ml.captions.prompts import TERMS, Prompt, TermDeck, find_terms, rewrite
from ml.captions.scene import MONK_TONES, NO_SCENE
from ml.poses.skeleton import PoseSample
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng, sample_seed
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.tables import CAPTIONS, POSES, empty_table, read_table, write_table
from ml.records.workspace import Workspace

STAGE: Final = "captions"
NO_TERM: Final = "none"


@dataclass
class _Work:
    """Results that a shard's loop collects."""

    exclusions: Exclusions
    rows: list[dict[str, object]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    num_in: int = 0
    num_named: int = 0
    num_named_found: int = 0


@dataclass(frozen=True)
class _Drafted:
    """An image with a caption that may name a person; `rng` continues after the draft."""

    sample_id: str
    pose: PoseSample
    rng: np.random.Generator
    draft: Draft


@dataclass(frozen=True)
class _Problem:
    """An image that cannot have a caption."""

    sample_id: str
    reason: str
    detail: str


def sample_ids(pose_id: str, variants: int) -> list[str]:
    """Return ids of a pose's images.

    Args:
        pose_id: Such as `pose-00003-00012`.
        variants: Images per pose.

    Returns:
        `image-00003-00012`, further ones with `-v1`, `-v2`, ...
    """
    first = f"image-{pose_id.removeprefix('pose-')}"
    return [first, *(f"{first}-v{index}" for index in range(1, variants))]


def run_shard(ws: Workspace, config: CaptionsConfig, shard: str) -> StageReport:
    """Caption the poses of one shard, drop captions that name a person, and write prompts.

    Args:
        ws: The workspace; reads `data/poses/<shard>.parquet`.
        config: How captions and prompts are made.
        shard: Name of the shard.

    Returns:
        Counts, the distribution of words of origin before and after, skin tones, name recall.

    Raises:
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    poses = read_table(ws.table_path("poses", shard), POSES)
    captioner = CAPTIONERS[config.captioner](ws, config, STAGE, shard)
    deck = TermDeck(sample_rng(ws.seed, STAGE, f"{shard}/terms"))
    detector = load_name_detector(config, ws.root)
    work = _Work(Exclusions(STAGE))
    drafted: list[_Drafted | _Problem] = []
    groups = poses.groupby("pose_id", sort=True)
    for pose_id, rows in progress(groups, f"captions {shard}", total=groups.ngroups):
        ids = sample_ids(str(pose_id), config.variants_per_pose)
        try:
            pose = PoseSample.from_frame(rows)
        except ValueError as error:
            drafted += [_Problem(one, reasons.DAMAGED_POSE, str(error)) for one in ids]
            continue
        drafted += [_draft_sample(ws, pose, sample_id, captioner) for sample_id in ids]
    # All texts at once: a detector with a model looks at many in one pass.
    texts = [item.draft.text for item in drafted if isinstance(item, _Drafted)]
    names = iter(detector.find_all(texts))
    for item in drafted:
        if isinstance(item, _Problem):
            work.exclusions.add(item.sample_id, item.reason, item.detail)
        else:
            _caption_sample(ws, config, item, next(names), deck, work)
    work.num_in = len(drafted)
    work.exclusions.check_drop_rate(work.num_in, config.max_drop_rate, "captions", shard)
    table = pd.DataFrame(work.rows) if work.rows else empty_table(CAPTIONS)
    write_table(ws.table_path(STAGE, shard), table, CAPTIONS)
    work.exclusions.write(ws, shard)
    return StageReport(
        num_in=work.num_in,
        num_out=len(work.rows),
        num_excluded=len(work.exclusions),
        metadata={
            "name_detector": detector.version,
            "captions_with_a_name": work.num_named,
            "of_these_found": work.num_named_found,
            "fraction_with_suffix": round(
                sum(prompt.choices["suffix"] for prompt in work.prompts)
                / max(len(work.prompts), 1),
                3,
            ),
            "example_prompt": work.prompts[0].text if work.prompts else "",
        },
        tables={
            "origin_before_and_after": origin_table(
                [draft.text for draft in work.drafts], work.prompts
            ),
            "skin_tones": _tone_table(work.drafts),
        },
    )


def origin_table(captions: list[str], prompts: list[Prompt]) -> pd.DataFrame:
    """Return words of origin in captions and in the prompts made of them.

    Args:
        captions: Before the rewriting.
        prompts: After it, in the same order.

    Returns:
        Columns `term`, `captions_before` and `prompts_after` (texts that contain the term at
        least once), `subjects_after` (persons who got it); last row: texts and subjects without.
    """
    before = Counter(term for text in captions for term in find_terms(text) or [NO_TERM])
    after = Counter(term for item in prompts for term in find_terms(item.text) or [NO_TERM])
    subjects = Counter(
        subject["term"] or NO_TERM for item in prompts for subject in item.choices["subjects"]
    )
    names = [*(term.masculine for term in TERMS), NO_TERM]
    return pd.DataFrame(
        {
            "term": names,
            "captions_before": [before[name] for name in names],
            "prompts_after": [after[name] for name in names],
            "subjects_after": [subjects[name] for name in names],
        }
    )


def load_name_detector(config: CaptionsConfig, root: Path) -> NameDetector:
    """Return the configured detector of personal names.

    Args:
        config: Which one, and its model.
        root: The project folder.

    Returns:
        The detector; a model is loaded once per process.
    """
    if config.name_detector == "gliner":
        return _gliner(config.gliner, root)
    return GazetteerNameDetector()


@lru_cache(maxsize=1)
def _gliner(config: GlinerConfig, root: Path) -> NameDetector:
    from ml.captions.gliner_names import GlinerNameDetector

    return GlinerNameDetector(config, root)


def _draft_sample(
    ws: Workspace, pose: PoseSample, sample_id: str, captioner: Captioner
) -> _Drafted | _Problem:
    """Draft the caption of one image."""
    rng = sample_rng(ws.seed, STAGE, sample_id)
    try:
        return _Drafted(sample_id, pose, rng, captioner.draft(pose, rng))
    except NoCaption as error:
        return _Problem(sample_id, reasons.NO_CAPTION, str(error))


def _caption_sample(
    ws: Workspace,
    config: CaptionsConfig,
    drafted: _Drafted,
    spans: list[NameSpan],
    deck: TermDeck,
    work: _Work,
) -> None:
    """Make the prompt of one image; append its row or its exclusion to `work`."""
    sample_id, pose, draft = drafted.sample_id, drafted.pose, drafted.draft
    work.num_named += draft.names_person
    if spans:
        work.num_named_found += draft.names_person
        # The span, not the name: the exclusions table must not keep what is removed here.
        where = ", ".join(f"characters {s.start}-{s.end} ({s.rule})" for s in spans)
        work.exclusions.add(sample_id, reasons.NAME, f"the caption names a person: {where}")
        return
    prompt = rewrite(
        draft.text,
        drafted.rng,
        probability=config.diversify_probability,
        suffix_probability=config.suffix_probability,
        suffix=config.suffix,
        tones=draft.subject_tones,
        deck=deck if draft.scene == NO_SCENE else None,
    )
    work.drafts.append(draft)
    work.prompts.append(prompt)
    work.rows.append(
        {
            "sample_id": sample_id,
            "pose_id": pose.pose_id,
            "split": pose.split,
            "num_people": len(pose.people),
            "caption": draft.text,
            "prompt": prompt.text,
            "negative_prompt": config.negative_prompt,
            "choices": prompt.choices_json(),
            "scene": draft.scene,
            "captioner": draft.captioner,
            "seed": sample_seed(ws.seed, "images", sample_id),
        }
    )


def _tone_table(drafts: list[Draft]) -> pd.DataFrame:
    counts = Counter(tone for draft in drafts for tone in draft.tones)
    return pd.DataFrame(
        {"monk_tone": list(MONK_TONES), "people": [counts[tone] for tone in MONK_TONES]}
    )
