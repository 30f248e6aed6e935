"""Waiting for the service, with bars on standard error so that standard output stays clean."""
