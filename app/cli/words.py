"""Lists that are written as one word."""

from app.cli.session import Unusable


def split(words: str | None) -> list[str] | None:
    """The comma separated words; None where nothing was given."""
    return None if words is None else [word.strip() for word in words.split(",") if word.strip()]


def numbers(words: str) -> list[int]:
    """Raises Unusable for what is no whole number."""
    try:
        return [int(word) for word in split(words) or []]
    except ValueError as wrong:
        raise Unusable(f"{words!r}: write whole numbers with commas between them, such as 0,1,2") from wrong
