"""What can be wrong with a request for features."""


class Unextractable(Exception):
    """Features cannot be had as asked; trying again would not help.

    `code` is a stable word for programs, `detail` says what was found and what to change.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
