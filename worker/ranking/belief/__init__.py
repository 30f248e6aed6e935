"""What mAP a candidate will reach: one joint Gaussian belief over candidates, from all that is known of them."""

from worker.ranking.belief.learned import Learned, shipped
from worker.ranking.belief.posterior import believe
from worker.ranking.belief.records import Belief, Evidence, Facts, Observed, TargetFacts

__all__ = ["Belief", "Evidence", "Facts", "Learned", "Observed", "TargetFacts", "believe", "shipped"]
