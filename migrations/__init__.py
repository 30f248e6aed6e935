"""Alembic revisions of app/db/tables.py; run by app.db.migrate."""
