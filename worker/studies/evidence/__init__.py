"""The study of scores: which of them says what a detector has to learn."""
