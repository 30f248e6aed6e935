"""Job `shard`: a part of a candidate's images is read, and what was found goes into storage for the `score` job."""

from worker.attempt import Attempt, ClaimedJob
from worker.handlers.ranking import feature_files
from worker.handlers.ranking.candidate import opened
from worker.handlers.ranking.scorable import wanted_of


def run(attempt: Attempt, job: ClaimedJob) -> None:
    """Reads the part that the payload names, unless it is there already. A second attempt stores the same file.

    Raises CandidateFailed where this candidate cannot be read, and NotFound.
    """
    position = job.payload["shard"]
    with opened(attempt, job) as hand:
        wanted = wanted_of(attempt, hand, job)
        if wanted.is_known(position):
            attempt.progress(1, 1, "parts", "it was read before")
            return
        key = wanted.key(position)
        path = wanted.read(position).save(hand.scratch, key)
        attempt.stage("storing")
        feature_files.keep(attempt, key, path)
