"""Named anatomical controls and asymmetries of the procedural head."""

from __future__ import annotations

import numpy as np

from ml.flame.procedural.anatomy import Anatomy, Field, eyelid_closing, radial
from ml.flame.procedural.surface import lower_border, smooth_step, upper_border

_LIVELINESS = 0.8
"""Keeps heads plausible when all named controls have random coefficients."""


def shape_controls(a: Anatomy) -> list[Field]:
    """Return named symmetric displacements (V, 3), mm, of one standard deviation each."""
    v, x, y, z = a.v, a.x, a.y, a.z
    one = np.ones(len(v))
    face = smooth_step(z, -30.0, 20.0) * smooth_step(y, 70.0, 40.0) * smooth_step(y, -135.0, -100.0)
    lower = (
        smooth_step(y, 5.0, -85.0)
        * smooth_step(z, -60.0, -5.0)
        * smooth_step(y + 0.5 * z, -140.0, -100.0)
    )
    cranium = smooth_step(y, 15.0, 75.0)
    neck = smooth_step(y + 0.3 * z, -85.0, -125.0)
    nose = a.at(0, -8, 15.0, 0.95, 40.0) + 0.5 * a.at(0, 14, 9.0, 0.8, 30.0)
    tip = a.at(0, -16, 8.5, 1.1, 52.0)
    mouth = a.at(0, -47, 12.0, 2.0, 15.0)
    chin = a.at(0, -82, 13.0, 1.5, 5.0)
    brow = a.at(27, 34, 8.0, 2.6, 10.0) * smooth_step(x, 56.0, 44.0)
    cheekbone = a.ball((56.0, -2.0, 22.0), 21.0)
    gonion = a.ball((52.0, -66.0, -20.0), 24.0) * (1 - a.ear)
    cheek = a.ball((44.0, -38.0, 28.0), 20.0)
    eye = a.at(31, 18, 13.0, 1.3, 5.0)
    centre = (0.0, -5.0, -40.0)
    fat = (
        a.ball((48.0, -55.0, 5.0), 30.0) * 2.6
        + a.ball((0.0, -108.0, 12.0), 26.0) * 3.0
        + neck * 1.6
    )
    out = radial(a) * fat[:, None]
    age = (
        a.move(cheek, -1.6, -1.2, -1.4) + a.move(a.at(32, -70, 9.0, 1.2), 1.2, -2.4, 0.6)
        + a.move(a.at(31, 28, 6.0, 1.8), 0, -1.4, 0.4) + a.move(a.at(20, -36, 7.0), 0, -0.8, -1.0)
        + a.move(mouth, 0, 0, -1.2) + a.move(tip, 0, -1.6, 0.6)
        + a.scale(a.ear, (0.0, -4.0, -46.0), (0.0, 0.05, 0.03))
    )  # fmt: skip
    male = (
        a.move(gonion, 2.4, -1.2, 0) + a.move(brow, 0, -0.5, 1.9) + a.move(chin, 0.9, -1.6, 1.6)
        + a.move(nose, 0.4, 0, 1.4) + a.move(neck, 0, 0, 0) + radial(a) * (neck * 3.0)[:, None]
        + a.move(a.ball((0, -126, -12), 9.0), 0, 0, 2.0) - a.move(cheek, 0.6, 0, 0.8)
    )  # fmt: skip
    controls: list[Field] = [
        ("size", (v - np.array(centre)) * 0.028),
        ("width", a.scale(one, centre, (0.030, 0.0, 0.0))),
        ("height", a.scale(one, centre, (0.0, 0.026, 0.0))),
        ("depth", a.scale(one, centre, (0.0, 0.0, 0.024))),
        ("heaviness", out),
        ("strength of the features", male),
        ("age", age),
        ("crown height", a.shift(cranium, y=2.6)),
        (
            "back of the skull",
            a.shift(smooth_step(z, -70.0, -130.0) * smooth_step(y, -60.0, 20.0), z=-4.0),
        ),
        ("skull width", a.move(cranium * smooth_step(x, 20, 60), 2.4)),
        ("forehead slope", a.shift(a.at(0, 84, 24.0, 2.0, 0.0), z=-2.8)),
        ("forehead bulge", a.shift(a.at(0, 62, 15.0, 2.0, 20.0), z=2.0)),
        ("temples", a.move(a.ball((64, 42, 12), 18.0), 2.2)),
        ("face length", a.shift(lower, y=-4.0)),
        ("face width", a.move(face * smooth_step(x, 25, 60), 2.4)),
        ("midface length", a.shift(smooth_step(y, 8.0, -22.0) * face, y=-1.8)),
        ("jaw width", a.move(gonion, 3.6)),
        ("jaw height", a.shift(gonion, y=-3.4)),
        ("jaw forward", a.shift(lower * smooth_step(y, -45.0, -75.0), z=2.6)),
        ("chin forward", a.shift(chin, z=2.8)),
        ("chin length", a.shift(a.at(0, -92, 15.0, 1.8, 0.0), y=-3.2)),
        ("chin width", a.move(a.at(20, -84, 11.0, 1.0), 2.8)),
        ("chin cleft", a.shift(a.at(0, -83, 4.0, 0.7, 30.0), z=-0.9)),
        ("cheek bones", a.move(cheekbone, 2.4, 0.4, 1.6)),
        ("cheek fullness", a.move(cheek, 2.2, 0, 1.9)),
        ("apple of the cheek", a.move(a.at(36, -14, 10.0), 0, 0, 1.8)),
        ("nose length", a.shift(a.at(0, -14, 11.0, 1.2, 38.0), y=-2.6)),
        ("nose projection", a.shift(nose, z=2.6)),
        ("nose tip up", a.shift(tip, y=1.9, z=0.3)),
        ("nose tip bulb", a.scale(tip, (0.0, -16.0, 64.0), (0.12, 0.10, 0.08))),
        ("nose width", a.move(a.at(13, -18, 7.5, 1.0, 42.0), 2.0)),
        ("nose bridge width", a.move(a.at(8, 8, 10.0, 0.8, 36.0), 1.1)),
        ("nose bridge height", a.shift(a.at(0, 16, 9.0, 0.9, 36.0), z=2.0)),
        ("nose hump", a.shift(a.at(0, 3, 7.5, 0.8, 42.0), z=1.5)),
        ("nostril height", a.shift(a.at(13, -19, 5.5, 1.0, 42.0), y=1.1)),
        ("eye distance", a.move(eye, 1.7)),
        ("eye height", a.shift(eye, y=1.5)),
        ("eye depth", a.shift(eye, z=1.4)),
        ("brow ridge", a.shift(brow, z=1.8)),
        ("brow height", a.shift(brow, y=1.7)),
        ("mouth width", a.move(a.at(24, -47, 9.0, 1.2, 15.0), 2.4)),
        ("mouth height", a.shift(mouth, y=1.7)),
        ("mouth forward", a.shift(a.at(0, -46, 14.0, 1.5, 15.0), z=1.9)),
        ("philtrum length", a.shift(a.at(0, -40, 6.0, 3.0, 25.0), y=-1.0)),
        ("muzzle", a.shift(a.at(0, -36, 10.0, 1.7, 20.0), z=1.5)),
        ("ear size", a.scale(a.ear, (0.0, -4.0, -46.0), (0.0, 0.075, 0.06))),
        ("ear standing out", a.move(a.ear * smooth_step(z, -38.0, -66.0), 3.4, 0.0, 0.8)),
        ("ear height", a.shift(a.ear, y=2.0)),
        ("ear tilt", a.shift(a.ear * (y + 4.0) / 30.0, z=-1.8)),
        ("ear lobe", a.shift(a.ear * smooth_step(y, -18.0, -32.0), y=-2.2)),
        ("ear top", a.shift(a.ear * smooth_step(y, 10.0, 26.0), y=1.8, z=-0.6)),
        ("neck width", radial(a) * (neck * 3.4)[:, None]),
        ("neck forward", a.shift(neck, z=3.2)),
        ("larynx", a.shift(a.ball((0, -126, -12), 9.0), z=1.6)),
        ("double chin", a.shift(a.ball((0, -106, 14), 16.0), y=-3.4, z=0.6)),
        ("nape", a.shift(a.ball((0, -85, -112), 30.0), z=-3.4)),
        (
            "shoulder slope",
            a.shift(smooth_step(x, 50.0, 105.0) * smooth_step(y, -140, -170), y=3.0),
        ),
    ]
    controls = [(name, a.rigid_eyes(field) * _LIVELINESS) for name, field in controls]
    # what changes the lids themselves must not be carried by the eyes
    lids = eyelid_closing(a)
    lip_up = (
        smooth_step(upper_border(x) + 2.0 - y, -1.5, 2.0)
        * a.at(0, -44, 7.0, 3.0, 25.0)
        * (1 - a.jaw)
    )
    lip_low = (
        smooth_step(y - lower_border(x) + 2.0, -1.5, 2.0) * a.at(0, -52, 7.0, 3.0, 25.0) * a.jaw
    )
    around_eyes = [
        ("eye opening", lids["upper"] * -0.75 + lids["lower"] * -0.4),
        (
            "eye slant",
            a.shift(a.at(46, 19, 6.0, 1.0, 5.0), y=0.9)
            - a.shift(a.at(17, 18, 5.0, 1.0, 5.0), y=0.5),
        ),
        ("upper lip", a.shift(lip_up, y=0.9, z=1.2)),
        ("lower lip", a.shift(lip_low, y=-1.1, z=1.3)),
        ("hooded lids", a.shift(a.at(36, 29, 4.5, 2.2, 15.0), y=-1.3, z=0.8)),
    ]
    return controls + [(name, a.still_eyes(field)) for name, field in around_eyes]


def asymmetries(a: Anatomy) -> list[Field]:
    """Return named antisymmetric displacements (V, 3), mm: D(mirror v) = -flip D(v)."""
    odd = np.tanh(a.v[:, 0] / 12.0)
    lower = (
        smooth_step(a.y, 0.0, -85.0)
        * smooth_step(a.z, -40.0, 10.0)
        * smooth_step(a.y + 0.5 * a.z, -140.0, -100.0)
    )
    nose = a.at(0, -10, 14.0, 1.0, 40.0)
    return [
        (name, a.rigid_eyes(field))
        for name, field in (
            ("chin to the side", a.shift(lower, x=1.2)),
            ("nose to the side", a.shift(nose, x=0.7)),
            ("mouth to the side", a.shift(a.at(0, -47, 11.0, 2.2, 15.0), x=1.0)),
            ("one eye higher", a.shift(odd * a.at(31, 20, 15.0, 1.3, 0.0), y=0.9)),
            ("one cheek fuller", a.shift(odd * a.ball((44, -30, 26), 22.0), z=1.2)),
            ("one ear higher", a.shift(odd * a.ear, y=1.4)),
            ("one ear further out", a.shift(np.abs(odd) * a.ear, x=1.2)),
            ("mouth aslant", a.shift(odd * a.at(20, -47, 9.0, 1.5, 15.0), y=0.6)),
            (
                "skull twisted",
                a.shift(odd * smooth_step(a.y, 0, 60) * smooth_step(a.z, -60, -120), z=1.8),
            ),
            ("one brow higher", a.shift(odd * a.at(30, 36, 8.0, 2.2, 10.0), y=0.8)),
        )
    ]
