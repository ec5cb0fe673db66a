"""The dataset in and out: the official VGGHeads layout, COCO, WebDataset, Hugging Face.

`source.py` streams our own dataset, which is what every writer takes; `export.py` is the only entry
point that checks licences first.
"""
