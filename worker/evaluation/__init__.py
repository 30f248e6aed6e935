"""What predictions are worth against the truth: COCO's and Pascal VOC's numbers, CorLoc, curves and pictures."""
