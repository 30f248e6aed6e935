"""The job that fine-tunes a candidate to know its mAP (`verify`), and what a training leaves behind."""
