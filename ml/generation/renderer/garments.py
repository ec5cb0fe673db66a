"""Clothing: materials and cut from the caption's words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.captions.scene import PersonLook
from ml.generation.renderer import materials as mat
from ml.generation.renderer.materials import MaterialTable
from ml.generation.renderer.palette import cloth_colour, companion_colour


@dataclass(frozen=True)
class Garments:
    """Material rows and cut of a person's clothing; lengths are metres or fractions of a limb."""

    skin: int
    top: int
    bottom: int
    shoe: int
    collar: int
    thickness: float
    sleeve: float
    hem: float
    skirt: float
    leg: float
    leg_loose: float
    feminine: float
    build: float


def dress(look: PersonLook, skin: int, table: MaterialTable, rng: np.random.Generator) -> Garments:
    """Choose materials and cut for what a caption says a person wears.

    Args:
        look: the words.
        skin: material row of the person's skin.
        table: receives the cloths.
        rng: draws shades, folds and lengths.

    Returns:
        The garments.
    """
    cut = _CUTS[look.top]
    colour = cloth_colour(look.top_colour, rng)
    second = companion_colour(colour, rng)
    under = cloth_colour(str(rng.choice(["white", "grey", "black", "beige", "light blue"])), rng)
    period = {"striped": rng.uniform(0.03, 0.09), "checked": rng.uniform(0.04, 0.1),
              "dotted": rng.uniform(0.03, 0.06), "printed": rng.uniform(0.03, 0.085)}  # fmt: skip
    top = table.add(
        mat.CLOTH,
        colour,
        colour2=second,
        colour3=under,
        pattern=look.top_pattern,
        scale=period.get(look.top_pattern, 0.05),
        specular=cut.shine,
        gloss=14.0,
        seed=float(rng.integers(1, 9999)),
        bump=cut.fold * rng.uniform(0.7, 1.3),
        amounts=(
            rng.uniform(0.05, 0.11) if cut.opens and rng.random() < 0.75 else 0.0,
            1.0 if cut.buttons else 0.0,
            0.0,
        ),
        fibre=cut.fibre,
        folds=(rng.uniform(6, 11), rng.uniform(4, 8)),
        fade=rng.uniform(0.03, 0.12),
    )
    collar = table.add(
        mat.CLOTH,
        colour * (1.0 if look.top != "jacket" else 0.9),
        specular=cut.shine,
        seed=float(rng.integers(1, 9999)),
        bump=0.004,
        fibre=cut.fibre,
        fade=0.05,
    )
    lower = cloth_colour(look.bottom_colour, rng)
    if look.top == "dress":
        bottom = top
    else:
        bottom = table.add(
            mat.CLOTH,
            lower,
            specular=0.03,
            seed=float(rng.integers(1, 9999)),
            bump=0.011 * rng.uniform(0.7, 1.3),
            fibre=0.9 if look.bottom == "jeans" else 0.35,
            folds=(rng.uniform(7, 12), rng.uniform(5, 9)),
            fade=0.45 if look.bottom == "jeans" else 0.1,
        )
    shoe = table.add(
        mat.PLAIN,
        cloth_colour(str(rng.choice(["black", "white", "brown", "grey", "navy"])), rng),
        specular=0.15,
        gloss=25.0,
    )
    feminine = {"woman": 1.0, "girl": 0.5}.get(look.subject, 0.0)
    if look.subject == "person":
        feminine = float(rng.random() < 0.5)
    # A top is tucked into a skirt, which would cut through its hem.
    skirted = look.bottom == "skirt" or cut.skirt > 0.0
    return Garments(
        skin=skin,
        top=top,
        bottom=bottom,
        shoe=shoe,
        collar=collar,
        thickness=cut.thickness * rng.uniform(0.8, 1.3),
        sleeve=cut.sleeve + (rng.uniform(-0.04, 0.05) if 0.0 < cut.sleeve < 1.0 else 0.0),
        hem=min(cut.hem, 0.88 if skirted else 2.0) + rng.uniform(-0.02, 0.05),
        skirt=rng.uniform(0.75, 1.1)
        if look.top == "dress" or look.bottom == "skirt"
        else cut.skirt,
        leg={"shorts": rng.uniform(0.38, 0.52), "skirt": 0.0}.get(look.bottom, 0.97)
        if look.top != "dress"
        else 0.0,
        leg_loose=rng.uniform(0.006, 0.022),
        feminine=feminine,
        build=float(np.clip(rng.normal(1.0, 0.09), 0.82, 1.3)),
    )


@dataclass(frozen=True)
class _Cut:
    thickness: float
    sleeve: float
    hem: float
    skirt: float = 0.0
    opens: bool = False
    buttons: bool = False
    fold: float = 0.008
    fibre: float = 0.3
    shine: float = 0.02


_CUTS: dict[str, _Cut] = {
    "t-shirt": _Cut(0.008, 0.33, 1.05, fold=0.009),
    "shirt": _Cut(0.010, 0.97, 1.06, buttons=True, fold=0.011),
    "sweater": _Cut(0.016, 0.97, 1.04, fold=0.009, fibre=0.8),
    "jacket": _Cut(0.021, 0.96, 1.08, opens=True, fold=0.010, shine=0.05),
    "coat": _Cut(0.027, 0.97, 1.06, skirt=0.85, opens=True, fold=0.010, fibre=0.6),
    "dress": _Cut(0.006, 0.22, 1.02, skirt=0.9, fold=0.008),
    "hoodie": _Cut(0.021, 0.97, 1.05, fold=0.012, fibre=0.5),
    "tank top": _Cut(0.004, 0.0, 1.04, fold=0.008),
}
