"""One module for each group of commands, with the single commands that belong to it."""
