"""Heads in images, each with a box and a FLAME mesh: what the library offers by name.

```python
from vggheads import HeadDetector

result = HeadDetector("data/trained_model")("photo.jpg")
```

Names are imported when they are used, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.flame.head_model import HeadModel as HeadModel
    from ml.flame.layer import FlameLayer as FlameLayer
    from ml.inference.detector import HeadDetector as HeadDetector
    from ml.inference.options import UnusableModel as UnusableModel
    from ml.inference.results import PredictionResult as PredictionResult
    from ml.records.exclusions import Exclusions as Exclusions
    from ml.records.heads import Heads as Heads
    from vggheads import datasets as datasets

_PLACES = {
    "Exclusions": "ml.records.exclusions",
    "FlameLayer": "ml.flame.layer",
    "HeadDetector": "ml.inference.detector",
    "HeadModel": "ml.flame.head_model",
    "Heads": "ml.records.heads",
    "PredictionResult": "ml.inference.results",
    "UnusableModel": "ml.inference.options",
}
__all__ = [
    "Exclusions",
    "FlameLayer",
    "HeadDetector",
    "HeadModel",
    "Heads",
    "PredictionResult",
    "UnusableModel",
    "datasets",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Raises:
        AttributeError: the package offers no such name.
    """
    if name == "datasets":
        return importlib.import_module("vggheads.datasets")
    if name not in _PLACES:
        raise AttributeError(f"module 'vggheads' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
