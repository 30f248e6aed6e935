"""Jobs that read what callers send: datasets and checkpoints."""
