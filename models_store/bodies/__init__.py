"""Backbones alone: how they are built, where their stages lie, and their norms. Detectors of every family place them."""
