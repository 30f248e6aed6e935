"""The job that concludes a study (`study`)."""
