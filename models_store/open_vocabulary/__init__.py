"""Detectors that find what words name (Grounding DINO, OWL, OmDet-Turbo): they can teach, and are never a candidate."""
