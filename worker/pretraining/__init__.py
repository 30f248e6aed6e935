"""Pretraining a DETR on pictures without labels (DETReg, arXiv 2106.04550): proposals, objective, loop and what it gained."""
