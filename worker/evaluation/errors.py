"""Why predictions cannot be evaluated."""


class Unevaluable(Exception):
    """Evaluation is not defined for what was given; trying again would not help.

    `code` is a stable word for programs (`no_boxes no_masks unknown_image repeated_image bad_shape bad_label
    not_finite`), `detail` says what was found and what to change.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
