"""What a fuzzer counts, and how it fails."""

import dataclasses
from collections import Counter


class FuzzError(AssertionError):
    """Raised when something of ours fails; holds the input."""


@dataclasses.dataclass(slots=True)
class Tally:
    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
