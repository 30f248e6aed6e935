"""Kill schedules: `python -m tests.faults.schedule --broker embedded|redis|rabbitmq --kills N --seed S`.

While an API and two workers ingest, convert, rank, pretrain and make pseudo boxes, whatever runs is killed at random moments,
every other time whoever works for one of the works with several jobs, and messages, servers, room on the disk and clocks go
wrong in between. Afterwards every job must have ended well, with one result that equals that of an
undisturbed run, and nothing may be left once it is tidied up. Only dead processes are started again. The seed settles what is
done in which order; moments and processes also depend on the machine.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select

from app.db.tables import (
    Checkpoint,
    Dataset,
    Event,
    Job,
    Outbox,
    Pretraining,
    PseudoLabelling,
    Ranking,
)
from tests.faults.servers import Kept, NoServer
from tests.faults.stage import BROKERS, LEASE_S, Stage, stage
from tests.faults.works import JOBS_OF, VARIANTS, Service, Work

KILLS = {"process": 5, "worker": 2, "group": 2, "api": 1}
# how many jobs have not ended, at most, before nothing more is asked for
AHEAD = 8
# between two of them
EACH_S = 0.5
# how long the one that works for a certain kind of work is waited for
AIM_S = 75.0
TABLES = {
    "dataset": Dataset,
    "checkpoint": Checkpoint,
    "ranking": Ranking,
    "pretraining": Pretraining,
    "pseudo_labelling": PseudoLabelling,
}
# rows that works of another kind make: what it starts from and what comes of it, and what the teacher says
MADE_BY = {"checkpoint": {"pretraining": 2}, "dataset": {"pseudo_labelling": 1}}
# every so many kills each of the other disturbances comes once
OTHERS_EVERY = 25
FULL_S = 4.0
AWAY_S = 2.0


class _Pool(NamedTuple):
    dataset_id: str
    checkpoint_ids: list[str]


@dataclass
class Outcome:
    """What was done and what is wrong now; `problems` must be empty. hit: kills by the kind of job that the worker had."""

    broker: str
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    works: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    refused: dict[str, int] = field(default_factory=dict)
    struck_jobs: int = 0
    most_attempts: int = 0
    starts: int = 0
    tidied: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def play(
    broker: str,
    kills: int,
    seed: int,
    *,
    patience_s: float = 600.0,
    trees: Sequence[str] = tuple(JOBS_OF),
    logs: Path | None = None,
    say: Any = None,
) -> Outcome:
    """One schedule. trees: the works of several jobs that are always under way. Raises NoServer where a server's program is missing."""
    outcome, rng, began = Outcome(broker, seed), random.Random(seed), time.monotonic()
    say = say or (lambda text: None)
    with stage(broker, logs) as on:
        keeping = _Keeping(on)
        service = Service(on.url, patience_s)
        pool, expected = _undisturbed(service, trees)
        say("the undisturbed run is through")
        sender = _Sender(on, service, pool, trees, seed)
        sender.start()
        aims = _aims(trees)
        for number, name in enumerate(_plan(on, kills, rng, outcome), 1):
            # the worker itself, not one whose lease has not lapsed yet
            _until(lambda: on.in_hand() or sender.failure, 60)
            aim = next(aims) if name in STRIKES else ()
            if not aim:
                # most at once, some late in a long job
                time.sleep(min(8.0, rng.expovariate(0.7)))
            for moment in (rng.random(), 0.0) if aim else ():
                # its job may have ended within the moment
                _until(lambda aim=aim: _workers(on, aim) or sender.failure, AIM_S)
                time.sleep(moment)
            _DEEDS[name](on, rng, aim, outcome.hit)
            outcome.done[name] += 1
            say(f"{number}: {name} {outcome.hit if name in STRIKES else ''}")
        sender.stop()
        service.wait([path for _, path in sender.sent])
        outcome.works = Counter(work.kind for work, _ in sender.sent)
        outcome.refused = service.refused
        _compare(service, sender.sent, expected, outcome)
        _look_at_records(on, expected, outcome)
        keeping.stop()
        outcome.starts = sum(process.starts for process in (on.api, *on.workers))
        on.stop()
        _look_at_what_is_left(on, outcome)
        outcome.problems += [sender.failure] if sender.failure else []
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _aims(trees: Sequence[str]) -> Iterator[Sequence[str]]:
    """Of every other strike whose worker it takes, as kinds of jobs; rankings as often as all others together."""
    while True:
        for other in [tree for tree in trees if tree != "ranking"] or [""]:
            for tree in ("ranking", other):
                yield ()
                yield JOBS_OF.get(tree, ())


def _undisturbed(service: Service, trees: Sequence[str]) -> tuple[_Pool, dict[Work, Any]]:
    """What works of several jobs work on, and what every work comes to while nobody is killed."""
    works = [Work(kind, each) for kind in ("dataset", "checkpoint") for each in range(VARIANTS[kind])]
    paths = {work: service.send(work, "", []) for work in works}
    service.wait(list(paths.values()))
    ids = {work: path.rpartition("/")[2] for work, path in paths.items()}
    pool = _Pool(ids[Work("dataset")], [ids[work] for work in works if work.kind == "checkpoint"])
    paths |= {Work(kind): service.send(Work(kind), *pool) for kind in trees}
    service.wait([paths[Work(kind)] for kind in trees])
    expected = {work: service.came_to(path) for work, path in paths.items()}
    wrong = [record for record in expected.values() if record["state"] not in ("ready", "succeeded")]
    assert not wrong, wrong
    return pool, expected


class _Sender(threading.Thread):
    """Asks for works, so that there are always some that have not ended."""

    def __init__(self, on: Stage, service: Service, pool: _Pool, trees: Sequence[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._on, self._service, self._pool, self._rng = on, service, pool, random.Random(seed)
        self._trees = trees
        self._over = threading.Event()
        self.sent: list[tuple[Work, str]] = []
        self.failure = ""

    def run(self) -> None:
        try:
            while not self._over.is_set():
                if self._on.open_jobs() >= AHEAD:
                    time.sleep(0.1)
                    continue
                work = self._next()
                self.sent.append((work, self._service.send(work, *self._pool)))
                # or datasets, which take less than that, would keep every worker from all else
                time.sleep(EACH_S)
        except Exception as failure:
            self.failure = f"sending failed: {type(failure).__name__}: {failure}"

    def _next(self) -> Work:
        """A work of several jobs, where none of its kind is under way; else one of a single job."""
        there = self._on.open_kinds()
        absent = [tree for tree in self._trees if JOBS_OF[tree][0] not in there]
        kind = absent[0] if absent else "checkpoint" if len(self.sent) % 6 == 5 else "dataset"
        return Work(kind, self._rng.randrange(VARIANTS[kind]))

    def stop(self) -> None:
        self._over.set()
        self.join(120)


class _Keeping(threading.Thread):
    """Starts dead processes again; nothing else helps."""

    def __init__(self, on: Stage) -> None:
        super().__init__(daemon=True)
        self._on, self._over = on, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.3):
            self._on.keep()

    def stop(self) -> None:
        self._over.set()
        self.join()


def _plan(on: Stage, kills: int, rng: random.Random, outcome: Outcome) -> list[str]:
    """Kills, with the other disturbances spread over them."""
    others = ["freeze", "flush", "disk"] + ([] if outcome.broker == "embedded" else ["broker", "postgres"])
    if not on.disk:
        others.remove("disk")
        outcome.skipped["disk"] = "this process may not mount a small disk"
    if on.clocks:
        outcome.done["clocks a minute apart"] = 1
    elif outcome.broker != "embedded":
        outcome.skipped["clocks"] = "there is no C compiler to make the shifted clock"
    plan = rng.choices(list(KILLS), list(KILLS.values()), k=kills)
    rounds = max(1, kills // OTHERS_EVERY)
    for each in range(rounds):
        for name in rng.sample(others, len(others)):
            share = (each + rng.random()) / rounds
            plan.insert(round(share * len(plan)), name)
    return plan


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _workers(on: Stage, aim: Sequence[str]) -> list[tuple[Kept, str]]:
    """Workers with a job in hand, of these kinds where there are any, and its kind."""
    return [(worker, kind) for worker, kind in on.in_hand() if not aim or kind in aim]


def _struck(on: Stage, rng: random.Random, aim: Sequence[str], hit: Counter[str]) -> Kept:
    """The worker that something is done to: one with such a job in hand, else with any, else any."""
    found = _workers(on, aim) or _workers(on, ())
    worker, kind = rng.choice(found) if found else (rng.choice(on.workers), "nothing")
    hit[kind] += 1
    return worker


def _kill_process(on: Stage, rng: random.Random, *whom: Any) -> None:
    """Any process below a worker: the one that computes, its nursery, a conversion, a helper of multiprocessing."""
    worker = _struck(on, rng, *whom)
    _kill(rng.choice(on.pids_below(worker) or [worker.process.pid]))


def _restart_broker(on: Stage, *_: Any) -> None:
    if on.redis is not None:
        on.redis.restart(AWAY_S)
    elif on.wire is not None:
        on.wire.set("cut")
        time.sleep(AWAY_S)
        on.wire.set("forward")


def _restart_postgres(on: Stage, *_: Any) -> None:
    if on.postgres is not None:
        on.postgres.restart(AWAY_S)


_DEEDS: dict[str, Callable[..., object]] = {
    "process": _kill_process,
    "worker": lambda *whom: _kill(_struck(*whom).process.pid),
    "group": lambda *whom: _struck(*whom).signal_group(signal.SIGKILL),
    "api": lambda on, *_: on.api.signal_group(signal.SIGKILL),
    "freeze": lambda on, *whom: on.freeze(_struck(on, *whom), 1.5 * LEASE_S),
    "flush": lambda on, *_: on.flush(),
    "disk": lambda on, *_: on.fill_disk(FULL_S),
    "broker": _restart_broker,
    "postgres": _restart_postgres,
}
# those that hit one worker
STRIKES = ("process", "worker", "group", "freeze")


def _until(true: Callable[[], object], patience_s: float) -> None:
    give_up = time.monotonic() + patience_s
    while not true() and time.monotonic() < give_up:
        time.sleep(0.05)


def _compare(
    service: Service, sent: list[tuple[Work, str]], expected: dict[Work, Any], outcome: Outcome
) -> None:
    for work, path in sent:
        found = service.came_to(path)
        wrong = [name for name, value in expected[work].items() if found.get(name) != value]
        if wrong:
            told = {name: found.get(name) for name in wrong}
            outcome.problems.append(
                f"{path} ({work}) differs from the undisturbed run in {json.dumps(told, default=str)[:600]}"
            )


def _look_at_records(on: Stage, expected: dict[Work, Any], outcome: Outcome) -> None:
    """Every job over and no other, each ended once, nothing announced, nothing held."""
    problems = outcome.problems
    jobs = [row[0] for row in on.look(select(Job))]
    for job in jobs:
        if job.state != "succeeded" or job.token is not None or job.lease_until is not None:
            problems.append(f"job {job.id} ({job.kind}) is {job.state}, held by {job.worker}: {job.error}")
    if waiting := on.look(select(func.count()).select_from(Outbox))[0][0]:
        problems.append(f"{waiting} jobs are still announced")
    asked = outcome.works + Counter(work.kind for work in expected)
    for kind, table in TABLES.items():
        count = on.look(select(func.count()).select_from(table))[0][0]
        others = sum(each * asked[by] for by, each in MADE_BY.get(kind, {}).items())
        if count != (wanted := asked[kind] + others):
            problems.append(f"{count} rows of {kind} were made, {wanted} by what was asked for")
    ends: Counter[str] = Counter()
    for stream, data in on.look(select(Event.stream_id, Event.data).where(Event.kind == "state")):
        ends[stream] += data.get("state") == "succeeded" and "stage" not in data
    problems += [f"job {job.id} succeeded {ends[job.id]} times" for job in jobs if ends[job.id] != 1]
    # a claim that was lost counts; those of jobs that were handed back do not
    outcome.struck_jobs = sum(job.attempt > 1 for job in jobs)
    outcome.most_attempts = max(job.attempt for job in jobs)


def _look_at_what_is_left(on: Stage, outcome: Outcome) -> None:
    """No process of ours, and no temporary file after tidying."""
    _until(lambda: not on.left_running(), 20)
    outcome.problems += [f"process {pid} outlived its service" for pid in on.left_running()]
    gone = json.loads(on.run("tidy", "--older-than-hours", "0", "--json"))["gone"]
    outcome.tidied = {kind: one["count"] for kind, one in gone.items() if one["count"]}
    again = json.loads(on.run("tidy", "--older-than-hours", "0", "--json", "--dry-run"))["gone"]
    outcome.problems += [f"{one['count']} {kind} stayed" for kind, one in again.items() if one["count"]]
    known = {"storage", "cache", "scratch", "broker", "tmp", "service.lock"}
    known |= {f"detrank.db{ending}" for ending in ("", "-wal", "-shm")}
    for path in on.home.rglob("*"):
        top, *below = path.relative_to(on.home).parts
        strange = top not in known or (top in ("scratch", "tmp") and below and path.is_file())
        if strange or path.suffix in (".part", ".tmp", ".taken") or (below[:1] == ["partial"] and below[1:]):
            outcome.problems.append(f"{path.relative_to(on.home)} was left")


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--broker", choices=BROKERS, required=True)
    asked.add_argument("--kills", type=int, default=200)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--patience", type=float, default=600.0, help="seconds for what must end at last")
    asked.add_argument("--logs", type=Path, help="a new folder that keeps what the processes said")
    given = asked.parse_args()
    # whoever stops it leaves neither processes nor a mounted disk behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def say(text: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    try:
        outcome = play(
            given.broker, given.kills, given.seed, patience_s=given.patience, logs=given.logs, say=say
        )
    except NoServer as missing:
        sys.exit(str(missing))
    sys.stdout.write(json.dumps(vars(outcome), indent=2, default=dict) + "\n")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
