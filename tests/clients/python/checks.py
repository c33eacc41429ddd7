"""What the client programs share: one line for each check, and how they all went."""

from __future__ import annotations


class Skipped(Exception):
    """The library can't do what is checked; the text says why."""


class Checks:
    """Prints `ok NAME`, `FAILED NAME: why` or `skipped NAME: why` as checks end."""

    def __init__(self) -> None:
        self._failed = False

    def passed(self, name: str) -> None:
        print(f"ok {name}", flush=True)

    def ended(self, name: str, error: Exception) -> None:
        if isinstance(error, Skipped):
            print(f"skipped {name}: {error}", flush=True)
            return
        self._failed = True
        print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)

    @property
    def exit_code(self) -> int:
        return 1 if self._failed else 0


def equal(seen: object, expected: object) -> None:
    """An assertion that says what it saw, and that `python -O` keeps."""
    if seen != expected:
        raise AssertionError(f"expected {expected!r}, got {seen!r}")
