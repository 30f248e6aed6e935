"""Pictures that stay where they are: what is there is pinned once, and only the pictures of a sample are ever fetched."""
