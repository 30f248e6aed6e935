"""YOLOX (arXiv 2107.08430): network, assignment and losses, under the published names of its tensors."""
