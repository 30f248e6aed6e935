"""Jobs: the database is the truth, the broker a doorbell.

jobs.add_job adds work; control.cancel, cancel_ranking, cancel_whole and retry steer it; leases.* is the worker's side; flow.py says what
follows; events.append tells the streams; relay.Relay rings the bells that outbox.py holds, through broker.Broker.
"""
