"""What the tables ask of fs3 and fs3 does not do yet: patterns of rows as conformance.py shows
them, and what they wait for. An entry whose rows all pass fails the run: this list only shrinks."""

__all__ = ["NOT_YET"]

NOT_YET: list[tuple[str, str]] = []
