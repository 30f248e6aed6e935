"""DETReg's objective written out from the papers in numpy, term by term; slow and plain, to compare with.

Matching, L1, GIoU: arXiv 2005.12872, section 3.1 and appendix A.2. Focal loss and its cost: arXiv 1708.02002, equation 5,
as arXiv 2010.04159 has it. Embedding: arXiv 2106.04550, section 3.2.
"""

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

ALPHA, GAMMA = 0.25, 2.0


def corners(box: np.ndarray) -> np.ndarray:
    x, y, w, h = box
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def giou(a: np.ndarray, b: np.ndarray) -> float:
    a, b = corners(a), corners(b)
    inside = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inside / union - (hull - union) / hull


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def matched(logits: np.ndarray, boxes: np.ndarray, wanted: np.ndarray, column: int, *, focal: bool) -> list:
    """Pairs (query, region) of least cost."""
    cost = np.zeros((len(boxes), len(wanted)))
    for q, r in itertools.product(range(len(boxes)), range(len(wanted))):
        if focal:
            p = sigmoid(logits[q, column])
            positive = ALPHA * (1 - p) ** GAMMA * -np.log(p + 1e-8)
            negative = (1 - ALPHA) * p**GAMMA * -np.log(1 - p + 1e-8)
            kind = 2 * (positive - negative)
        else:
            kind = -softmax(logits[q])[column]
        cost[q, r] = kind + 5 * np.abs(boxes[q] - wanted[r]).sum() - 2 * giou(boxes[q], wanted[r])
    return list(zip(*linear_sum_assignment(cost), strict=True))


def layer_loss(logits: np.ndarray, boxes: np.ndarray, wanted: list, column: int, *, focal: bool) -> float:
    """2 focal (or 1 cross-entropy) + 5 L1 + 2 (1 - GIoU) of one decoder layer over a batch."""
    count = max(1, sum(len(each) for each in wanted))
    distance = overlap = weight = kinds = 0.0
    for image, regions in enumerate(wanted):
        pairs = matched(logits[image], boxes[image], regions, column, focal=focal)
        for q, r in pairs:
            distance += np.abs(boxes[image, q] - regions[r]).sum()
            overlap += 1 - giou(boxes[image, q], regions[r])
        hit = {q for q, _ in pairs}
        for q in range(logits.shape[1]):
            if focal:
                for c, z in enumerate(logits[image, q]):
                    p = sigmoid(z)
                    if q in hit and c == column:
                        kinds += -ALPHA * (1 - p) ** GAMMA * np.log(p)
                    else:
                        kinds += -(1 - ALPHA) * p**GAMMA * np.log(1 - p)
            else:
                here = 1.0 if q in hit else 0.1
                kinds += -here * np.log(softmax(logits[image, q])[column if q in hit else -1])
                weight += here
    classes = 2 * kinds / count if focal else kinds / weight
    return classes + 5 * distance / count + 2 * overlap / count


def total_loss(logits, boxes, embedded, wanted: list, vectors: list, column: int, *, focal: bool) -> float:
    """`logits` (L, B, Q, C), `boxes` (L, B, Q, 4), `embedded` (B, Q, n); the sum over layers, and the embedding's."""
    total = sum(layer_loss(s, b, wanted, column, focal=focal) for s, b in zip(logits, boxes, strict=True))
    differences = []
    for image, (regions, vector) in enumerate(zip(wanted, vectors, strict=True)):
        for q, r in matched(logits[-1, image], boxes[-1, image], regions, column, focal=focal):
            differences.append(np.abs(embedded[image, q] - vector[r]))
    return total + float(np.mean(differences))
