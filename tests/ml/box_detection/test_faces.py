"""The optional face detector."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ml.box_detection import faces
from ml.box_detection.faces import (
    FaceBoxDetector,
    FaceCheckConfig,
    HaarFaceDetector,
    build_face_detector,
)


def cartoon_face():
    """A frontal face as the cascade knows it: bright, with dark eyes, brows and mouth."""
    image = np.full((200, 200), 90, np.uint8)
    cv2.ellipse(image, (100, 100), (55, 72), 0, 0, 360, 210, -1)
    for x in (78, 122):
        cv2.ellipse(image, (x, 85), (14, 8), 0, 0, 360, 110, -1)
        cv2.circle(image, (x, 86), 5, 25, -1)
        cv2.line(image, (x - 14, 72), (x + 14, 71), 60, 4)
    cv2.ellipse(image, (100, 112), (9, 5), 0, 0, 180, 130, -1)
    cv2.line(image, (100, 85), (100, 110), 235, 6)
    cv2.ellipse(image, (100, 138), (22, 6), 0, 0, 360, 90, -1)
    return cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 2), cv2.COLOR_GRAY2RGB)


def test_switched_off_there_is_no_detector():
    assert build_face_detector(FaceCheckConfig()) is None


def test_it_finds_a_face_and_nothing_on_a_wall():
    detector = build_face_detector(FaceCheckConfig(backend="haar", min_neighbours=2))
    assert isinstance(detector, FaceBoxDetector)
    wall = np.full((120, 160, 3), 128, np.uint8)
    on_wall, found = detector.detect_faces([wall, cartoon_face()])
    assert on_wall.shape == (0, 4)
    assert len(found) == 1
    x0, y0, x1, y1 = found[0]
    assert x0 < 78 < 122 < x1
    assert y0 < 85 < 138 < y1


def test_an_opencv_without_cascades_is_named(monkeypatch):
    monkeypatch.setattr(faces, "HAAR_CASCADE", "gone.xml")
    with pytest.raises(RuntimeError, match=r"brings no gone\.xml; install opencv.* below 5"):
        HaarFaceDetector(FaceCheckConfig(backend="haar"))
