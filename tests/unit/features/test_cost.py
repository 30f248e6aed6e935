import torch

from worker.features.cost import Meter

CPU = torch.device("cpu")


def run(step):
    module = torch.nn.Linear(2, 2)
    meter = Meter(module, CPU, "a test")
    with torch.no_grad():
        meter.run(step, 1, (8, 8))
    return meter.cost()


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


def test_what_is_run_is_handed_on_and_weighed_once():
    meter = Meter(torch.nn.Linear(2, 2), CPU, "a test")
    assert meter.cost() is None
    mib = 2**20
    with torch.no_grad():
        assert meter.run(lambda: torch.zeros(2 * mib, dtype=torch.uint8), 2, (8, 8)).numel() == 2 * mib
        meter.run(lambda: torch.zeros(50 * mib, dtype=torch.uint8), 2, (8, 8))
    assert meter.cost().peak_memory_bytes == 6 * 4 + mib


def test_time_is_the_fastest_of_the_size_it_was_weighed_at(monkeypatch):
    meter = Meter(torch.nn.Linear(2, 2), CPU, "a test")
    now = [0.0]
    monkeypatch.setattr("worker.features.cost.time.perf_counter", lambda: now[0])

    def lasting(seconds):
        def step():
            now[0] += seconds

        return step

    for seconds, images, size in ((9.0, 1, (8, 8)), (4.0, 2, (8, 8)), (3.0, 1, (8, 8)), (0.1, 1, (4, 4))):
        meter.run(lasting(seconds), images, size)
    assert meter.cost().ms_per_image == 2000.0
