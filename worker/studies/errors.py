"""The one way a study is refused."""


class StudyRefused(Exception):
    """Observations or sources that no study can stand on.

    ``code`` is stable and short: ``no_observations duplicate not_finite no_map``, of a benchmark also ``few_sources
    unknown_source unknown_scale other_study no_body``, of a study file ``bad_file bad_dataset
    not_trained``; ``detail`` names what was found and what to change.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
