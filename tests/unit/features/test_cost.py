import torch

from worker.features.cost import measure

CPU = torch.device("cpu")


def run(step):
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        return measure(step, module, CPU, (8, 8), "a test")


def test_peak_counts_what_is_alive_at_once():
    mib = 2**20

    def chain():
        held = torch.zeros(mib, dtype=torch.uint8)
        for _ in range(5):
            held = held + 1
        return held

    weights = (4 + 2) * 4
    assert run(chain).peak_memory_bytes == weights + 2 * mib


def test_views_and_weights_are_not_counted_twice():
    weight = torch.ones(1000, dtype=torch.uint8)

    def views():
        made = weight.view(10, 100) + 1
        return made[2:], made.reshape(-1), weight[3:]

    assert run(views).peak_memory_bytes == 24 + 1000


def test_parameters_are_counted_and_time_is_positive():
    cost = run(lambda: torch.zeros(1))
    assert (cost.parameters, cost.device, cost.image_hw) == (6, "cpu", (8, 8))
    assert cost.ms_per_image >= 0
