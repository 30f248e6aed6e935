"""What is computed: scores, zero points, agreement of scores with mAP, choices and what they cost."""
