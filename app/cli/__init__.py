"""The `detrank` command: one module for each group of commands, on the Python client."""
