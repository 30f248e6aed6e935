"""Job `shard`: a part of a candidate's images is read, and what was found goes into storage for the `score` job."""

from worker.handlers import feature_files
from worker.handlers.candidate import opened
from worker.handlers.scorable import wanted_of
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> None:
    """Reads the part that the payload names, unless it is there already. A second attempt stores the same file.

    Raises CandidateFailed where this candidate cannot be read, and NotFound.
    """
    position = job.payload["shard"]
    with opened(step, job) as hand:
        wanted = wanted_of(step, hand, job)
        if wanted.is_known(position):
            step.progress(1, 1, "parts", "it was read before")
            return
        key = wanted.key(position)
        path = wanted.read(position).save(hand.scratch, key)
        step.stage("storing")
        feature_files.keep(step, key, path)
