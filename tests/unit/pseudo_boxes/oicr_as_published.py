"""WSDDN (arXiv 1511.02853, section 3) and OICR (arXiv 1704.00138, section 3 and algorithm 1), written down plainly in numpy.

Nothing here is shared with the library; loops stand where the papers have sums. Label 0 is background.
"""

import numpy as np


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def proposal_scores(class_logits, region_logits):
    """Equations 1 to 3 of WSDDN: softmax over classes of each region times softmax over regions of each class."""
    return softmax(class_logits, 1) * softmax(region_logits, 0)


def image_loss(scores, present):
    """Equation 1 of OICR, which sums over classes, as its code averages it."""
    total = 0.0
    for c in range(scores.shape[1]):
        p = min(max(sum(scores[r, c] for r in range(len(scores))), 1e-6), 1 - 1e-6)
        total += -np.log(p) if present[c] else -np.log(1 - p)
    return total / scores.shape[1]


def supervision(scores, present, boxes, overlap=0.5):
    """Algorithm 1: labels (n,) and weights (n,) that scores (n, C) of one stage give to the next."""
    n = len(boxes)
    labels, weights, nearest = np.zeros(n, int), np.zeros(n), np.full(n, -1.0)
    for c in range(scores.shape[1]):
        if not present[c]:
            continue
        top = int(np.argmax(scores[:, c]))
        for r in range(n):
            found = iou(boxes[r], boxes[top])
            if found > nearest[r]:
                nearest[r], weights[r] = found, scores[top, c]
                labels[r] = c + 1 if found >= overlap else 0
    return labels, weights


def refinement_loss(logits, labels, weights):
    """Equation 3 of OICR: the weighted cross entropy over regions; logits (n, C + 1), background first."""
    p = softmax(logits, 1)
    return -sum(weights[r] * np.log(p[r, labels[r]]) for r in range(len(p))) / len(p)


def losses(class_logits, region_logits, refined, present, boxes):
    """All losses of one picture: the image's, then that of each refinement."""
    scores = proposal_scores(class_logits, region_logits)
    found = [image_loss(scores, present)]
    for logits in refined:
        found.append(refinement_loss(logits, *supervision(scores, present, boxes)))
        scores = softmax(logits, 1)[:, 1:]
    return found
