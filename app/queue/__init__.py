"""Jobs in the database, and the broker that only rings for them.

`tree.py` has the rule: a job may have children and sleeps until they have ended; `kinds.py` says how each kind differs,
`mirror.py` keeps rows as their jobs are. `jobs.py` locks and moves single rows, `leases.py` is the worker's side, `removal.py`
deletes. `outbox.py` keeps a bell for each queued job, `relay.py` hands bells to `broker.py`.
"""
