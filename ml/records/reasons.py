"""Why a sample is left out: one constant for each cause, so that equal causes can be counted."""

from __future__ import annotations

# Files and what they hold.
DAMAGED_IMAGE = "damaged_image"
DAMAGED_VIDEO = "damaged_video"
OTHER_KIND = "other_kind"
"""A file that is neither image nor video."""
DAMAGED_SHARD = "damaged_shard"
"""A shard lacks the sample, or breaks off before its end."""
DAMAGED_TAR = "damaged_tar"
DAMAGED_JSON = "damaged_json"
DAMAGED_LABEL = "damaged_label"
"""A box or parameters that training cannot use."""
DAMAGED_ANNOTATION = "damaged_annotation"
"""A published file that holds no usable annotation."""
NO_CALIBRATION = "no_calibration"
ANGLE_OVER_99 = "angle_over_99"
"""A head of AFLW2000-3D that every protocol leaves out."""
DAMAGED_POSE = "damaged_pose"
UNREADABLE_FILE = "unreadable_file"
"""A pipe, a device, or gone."""
NO_IMAGE = "no_image"
NO_ANNOTATION = "no_annotation"
BAD_NAME = "bad_name"
BAD_MEMBER = "bad_member"
LATE_MEMBER = "late_member"
UNSAFE_PATH = "unsafe_path"
SHARED_NAME = "shared_name"
DUPLICATE = "duplicate"
EXCLUSION_LIST = "exclusion_list"
TAKEN_DOWN = "taken_down"

# Source images of the pose stage.
NO_SAFETY_LABEL = "no_safety_label"
UNSAFE_LABEL = "unsafe_label"
TOO_LARGE = "too_large"
ASPECT_RATIO = "aspect_ratio"
NO_PERSON = "no_person"

# Poses, captions, images, crops.
NO_HEAD = "no_head"
NO_CAPTION = "no_caption"
NAME = "name"
"""The caption names a person."""
NOT_DRAWN = "not_drawn"
UNSUPPORTED_SIZE = "unsupported_size"
HIDDEN = "hidden"

# Models.
NON_FINITE = "non_finite"
NO_FACE = "no_face"

# Files of labelling tools.
DAMAGED_ENTRY = "damaged_entry"
DAMAGED_BOX = "damaged_box"
ROTATED_BOX = "rotated_box"
BOX_OUTSIDE = "box_outside"
DUPLICATE_BOX = "duplicate_box"
NOT_ANNOTATED = "not_annotated"
UNKNOWN_IMAGE = "unknown_image"
DUPLICATE_IMAGE = "duplicate_image"
TEST_IMAGE = "test_image"
OTHER_SIZE = "other_size"
"""An image of another size than its table or its labels say."""

# The filters: rules (`ml.filtering.rules.RULES`) and screens (`ml.filtering.screens`).
FLIP_COUNT = "flip_count"
FACE_WITHOUT_HEAD = "face_without_head"
CUT_COUNT = "cut_count"
UNSAFE_CONCEPT = "unsafe_concept"
UNSAFE_CLASS = "unsafe_class"
KNOWN_IDENTITY = "known_identity"
