"""Detectors with queries (DETR and its descendants): the modules are transformers', everything around them is ours."""
