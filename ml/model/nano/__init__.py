"""Our own small detector, for 192 to 256 px on a CPU: the demo's. Nothing in it is the paper's.

It is the published network (`ml.model`) with other parts: losses, decoding, suppression and export
are the same. What differs:

* plain convolutions for QARepVGG blocks, a stem that reaches stride 4 at once, a neck without c2
  (`trunk.py`);
* FLAME branches that are pointwise, share their convolutions over the scales, predict offsets in
  strides and start frontal (`heads.py`);
* training computes the FLAME branches only at the anchors that learn a head (`network.py`).
"""
