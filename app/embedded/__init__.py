"""The whole service on one machine: serving, the worker beside the API, and finding one that runs."""
