"""What is written of a study: pages, tables, plots."""
