"""Documents of the service as text and tables for a terminal."""
