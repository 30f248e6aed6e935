"""What runs a study: its file, its parts, the processes that work on them."""
