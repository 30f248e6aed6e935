"""Detection from image labels: heads over the instances of a picture, and their losses."""
