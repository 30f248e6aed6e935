"""Runs a ranking by the client that openapi-python-client made: `rank.py URL DATASET CHECKPOINT...` prints the order."""

import sys
import time

from generated import Client
from generated.api.rankings import create_ranking, get_ranking
from generated.models import RankingCreate, RankingView

url, dataset, *checkpoints = sys.argv[1:]
with Client(base_url=url) as client:
    ranking = create_ranking.sync(
        client=client, body=RankingCreate(dataset_id=dataset, checkpoint_ids=checkpoints)
    )
    assert isinstance(ranking, RankingView), ranking
    while ranking.state in ("queued", "running"):
        time.sleep(0.2)
        ranking = get_ranking.sync(ranking.id, client=client)
        assert isinstance(ranking, RankingView), ranking
assert ranking.state == "succeeded", ranking.error
sys.stdout.write(" ".join(candidate.checkpoint_id for candidate in ranking.candidates))
