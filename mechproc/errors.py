"""The errors a user can cause. Each prints as one line that names what was wrong and what is allowed."""

from __future__ import annotations


class MechprocError(Exception):
    """Base of every error that the user, and not the code, has to mend."""


class ConfigError(MechprocError, ValueError):
    """A setting that cannot be used; the message names the field, its value and what is allowed."""


class PartError(MechprocError, ValueError):
    """A part that does not exist in this model, or an intervention that means nothing there."""


class StoreError(MechprocError, OSError):
    """A file or folder that cannot be read or written, or does not hold what its name promises."""


class TrainingError(MechprocError, ArithmeticError):
    """A training that cannot go on, such as a loss that is not finite; the message names the step."""


MOST_SHOWN = 200
"""Characters of a value in a message."""


def shown(value: object) -> str:
    """A value for a message: its ``repr``, cut off where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a value that is nested too deeply
        return f"<{type(value).__name__} too large to show>"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def first_line(error: BaseException) -> str:
    """The first line of what an error of somebody else's says, for a message of ours."""
    return (str(error).strip() or "no reason given").splitlines()[0]


def require(allowed: bool, field: str, value: object, what_is_allowed: str) -> None:
    """Raise a ``ConfigError`` for ``field`` unless ``allowed``."""
    if not allowed:
        raise ConfigError(f"{field} = {shown(value)} is not allowed: {what_is_allowed}")
