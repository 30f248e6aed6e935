"""State dicts that tests wrap, rename and move."""

from torch import Tensor

State = dict[str, Tensor]


def lead(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def moved(state: State) -> State:
    return {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
