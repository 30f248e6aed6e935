"""Studies: which metric deserved trust, and with what certainty. Importing this loads no torch."""

from worker.studies.errors import StudyRefused
from worker.studies.measures.correlation import Coefficient, Correlations, correlate
from worker.studies.measures.observations import Observation, Place, swapped

__all__ = ["Coefficient", "Correlations", "Observation", "Place", "StudyRefused", "correlate", "swapped"]
