import numpy as np
import pytest

from worker.features.grouping import DecodedImage, grouped


def picture(number: int, height: int, width: int) -> DecodedImage:
    return DecodedImage(number, np.zeros((height, width, 3), np.uint8), np.array([number]), np.zeros((1, 4)))


def groups(sizes, batch_size, limit=10**9):
    pictures = [picture(number, *size) for number, size in enumerate(sizes)]
    return [
        [one.image_id for one in batch]
        for batch in grouped(pictures, lambda h, w: (h, w), lambda size: batch_size, limit)
    ]


@pytest.mark.parametrize(
    ("sizes", "batch_size", "expected"),
    [
        ([], 3, []),
        ([(1, 2)], 3, [[0]]),
        ([(1, 2), (2, 1), (1, 2), (1, 2), (2, 1)], 2, [[0, 2], [1, 4], [3]]),
        ([(4, 4)] * 5, 2, [[0, 1], [2, 3], [4]]),
        ([(4, 4), (3, 3)], 1, [[0], [1]]),
    ],
)
def test_pictures_of_one_size_go_together_and_none_is_lost(sizes, batch_size, expected):
    assert groups(sizes, batch_size) == expected


def test_too_much_waiting_sends_the_largest_group_ahead():
    assert groups([(10, 10), (2, 2), (10, 10), (2, 2)], 8, limit=500) == [[0, 2], [1, 3]]


def test_one_picture_above_the_limit_still_passes():
    assert groups([(100, 100), (2, 2)], 8, limit=10) == [[0], [1]]


def test_what_waits_is_bounded():
    waiting, most = 0, 0

    def stream():
        nonlocal waiting, most
        for number in range(40):
            waiting += 1
            most = max(most, waiting)
            yield picture(number, 10, 10 + number)

    for batch in grouped(stream(), lambda h, w: (h, w), lambda size: 4, max_waiting_bytes=5000):
        waiting -= len(batch)
    assert most < 20
