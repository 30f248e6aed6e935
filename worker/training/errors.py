"""What can be wrong with a training, before it starts and while it runs."""


class Untrainable(Exception):
    """A training cannot be had as asked; trying again would not help.

    `code` is a stable word for programs, `detail` says what was found and what to change.
    Codes: unknown_recipe wrong_family wrong_architecture bad_option bad_plan too_few_images no_objects other_plan
    broken_state.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class TrainingDiverged(Exception):
    """The loss is no number any more; `detail` says at which iteration, at which rate, and what to change."""

    code = "training_diverged"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
