"""How often somebody may ask: never more than allowed by all processes together, and cheap."""

import threading

import pytest

from app.db.engine import Database
from app.db.migrate import upgrade
from app.errors import TooManyRequests
from app.services import rates
from app.services.rates import Rates
from app.settings import Settings

ME = {"key": "key_1", "workspace": "ws_1"}


@pytest.fixture
def database(database_url):
    upgrade(database_url)
    made = Database(database_url)
    yield made
    made.dispose()


@pytest.fixture
def clock(monkeypatch):
    """Time stands still, 20 s before the end of a minute."""
    now = [1_000_000_000.0]
    assert now[0] % 60 == 40
    monkeypatch.setattr(rates.time, "time", lambda: now[0])
    return now


def allowed(counting: Rates, whose: dict[str, str], tries: int, *, upload: bool = False) -> int:
    found = 0
    for _ in range(tries):
        try:
            counting.count(whose, upload=upload)
            found += 1
        except TooManyRequests:
            continue
    return found


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_exactly_the_limit_in_one_process_and_anew_in_the_next_minute(database, clock, limit):
    counting = Rates(database, Settings(key_requests_per_minute=limit))
    assert allowed(counting, ME, limit + 5) == limit
    with pytest.raises(TooManyRequests) as refused:
        counting.count(ME, upload=False)
    assert refused.value.retry_after_s == 20
    clock[0] += 20
    assert allowed(counting, ME, limit + 5) == limit


def test_several_processes_share_what_is_allowed(database, clock):
    limit = 200
    processes = [Rates(database, Settings(key_requests_per_minute=limit)) for _ in range(4)]
    found = [0] * len(processes)

    def ask(n: int) -> None:
        found[n] = allowed(processes[n], ME, limit)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == limit


def test_it_asks_the_database_seldom(database, clock, monkeypatch):
    limit, asked = 1000, []
    take = rates._take
    monkeypatch.setattr(rates, "_take", lambda *given: asked.append(1) or take(*given))
    counting = Rates(database, Settings(key_requests_per_minute=limit))
    assert allowed(counting, ME, 2 * limit) == limit
    assert len(asked) < 60
    assert counting.in_hand(ME, upload=False), "it is known to be used up"


def test_a_workspace_counts_all_its_keys_and_uploads_are_counted_apart(database, clock):
    counting = Rates(database, Settings(workspace_requests_per_minute=10, key_uploads_per_hour=2))
    told = counting.count(ME, upload=True)
    assert told["RateLimit-Policy"] == '"workspace-requests";q=10;w=60, "key-uploads";q=2;w=3600'
    assert told["RateLimit"].startswith('"workspace-requests";r=9;t=20, "key-uploads";r=1;t=')
    assert allowed(counting, ME, 5, upload=True) == 1
    left = allowed(counting, ME | {"key": "key_2"}, 10)
    assert left == 10 - 6, "a refused upload was a request as well"


def test_without_limits_nothing_is_counted(database):
    assert not Rates(database, Settings()).any
