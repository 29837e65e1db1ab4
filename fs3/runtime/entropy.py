"""Randomness as an argument, so that a seed decides every run of the simulator."""

import os
import random
from typing import Protocol

__all__ = ["Entropy", "SeededEntropy", "SystemEntropy"]


class Entropy(Protocol):
    def token(self, length_bytes: int) -> bytes:
        """Random bytes: identifiers, incarnations, keys."""

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high): jitter of retries."""


class SystemEntropy:
    """The kernel's generator."""

    def token(self, length_bytes: int) -> bytes:
        return os.urandom(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        return random.SystemRandom().uniform(low, high)


class SeededEntropy:
    """Same seed, same values. Never for keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, length_bytes: int) -> bytes:
        return self._random.randbytes(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)
