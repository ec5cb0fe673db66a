"""The single-shot detector: YOLO-NAS trunk, six FLAME branches, assignment, losses, decoding.

Read `config.py` (sizes), `detector.py` (the network), `decode.py` and `postprocess.py` (heads out),
then `targets.py`, `assigner.py` and `losses.py` (training). This is the paper's network; our own
small one, which the demo trains, is in `nano/`; `building.py` makes either.
"""
