"""What ends a run."""

__all__ = ["Failure"]


class Failure(Exception):
    """A promise was broken, or recovery took too long; the text says what and where."""
