"""Every knob of the metrics, in one place. The defaults are the published values where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Parameters of the metrics.

    logme_iterations, logme_tolerance: the fixed point of LogME (You et al. 2021) stops after this many
        steps, or when alpha/beta moves by less than this share.
    transrate_epsilon: the squared distortion of the coding rate (Huang et al. 2022).
    gram_precision: float64, or float32 products summed in float64 (faster; the error is in docs/metrics.md).
    block_rows: rows converted to float64 at a time; bounds the working memory.
    iou_weight: of IoU-LogME beside U-LogME in the Det-LogME-like score, both scaled to [0, 1] over the pool.
    nleep_energy, nleep_components: share of the variance kept, and Gaussians per class, of N-LEEP (2021).
    nleep_seed: of the Gaussian mixture's start.
    parc_dims, parc_objects, parc_seed: principal components, most objects compared, and the seed of their
        choice where there are more, of PARC (2021).
    gbc_dims, gbc_covariance: principal components and the shape of a class of the Bhattacharyya
        coefficient (2022).
    sfda_decay, sfda_floor, sfda_steps: shrinkage exp(-decay * largest eigenvalue), its least value, and the
        power iterations that estimate that eigenvalue, of SFDA (2022).
    ncti_dims, ncti_shrinkage_dims, ncti_floor: principal components, those whose variance sets the
        shrinkage, and its least value, of NCTI (2023).
    etran_energy_per_mille: share of the objects, lowest energy first, that ETran's energy averages (2023).
    rank_tolerance: eigenvalues below this share of the largest count as zero; None: max(N, D) * 2.2e-16.
    """

    logme_iterations: int = 11
    logme_tolerance: float = 0.01
    transrate_epsilon: float = 1e-4
    iou_weight: float = 1.0
    nleep_energy: float = 0.8
    nleep_components: int = 5
    nleep_seed: int = 0
    parc_dims: int = 32
    parc_objects: int = 2000
    parc_seed: int = 0
    gbc_dims: int = 64
    gbc_covariance: Literal["diagonal", "spherical"] = "diagonal"
    sfda_decay: float = 5.0
    sfda_floor: float = 1e-10
    sfda_steps: int = 3
    ncti_dims: int = 64
    ncti_shrinkage_dims: int = 32
    ncti_floor: float = 1e-10
    etran_energy_per_mille: int = 5
    gram_precision: Literal["float64", "float32"] = "float64"
    block_rows: int = 1024
    rank_tolerance: float | None = None


DEFAULTS = Options()
