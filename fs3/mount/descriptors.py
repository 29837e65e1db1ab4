"""How many descriptors the processes of a mount may have."""

import resource

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> None:
    """As many as this user may: every ring of a program takes three, here and in the keeper."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
