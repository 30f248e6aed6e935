"""The workers' own Celery application with the handler of handlers.py in place."""

from worker.celery_app import app

app.conf.include = ["worker.tasks", "tests.faults.handlers"]
