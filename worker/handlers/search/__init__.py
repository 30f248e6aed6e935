"""The job that decides what a search trains next (`search`)."""
