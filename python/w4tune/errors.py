"""The package's one exception and its one kind of warning."""

from w4tune._native import W4tuneError

__all__ = ["W4tuneError", "W4tuneWarning"]


class W4tuneWarning(UserWarning):
    """Something works, but not as it should: default kernels serve, nothing was replaced."""
