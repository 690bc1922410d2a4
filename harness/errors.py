"""Errors a user can act on. The command line prints them as one line; anything else is a bug."""


class HarnessError(Exception):
    """Base of every expected failure."""


class UnknownName(HarnessError):
    """A name of a plugin, size, device or candidate that nothing defines."""


class BadPlugin(HarnessError):
    """A plugin file exists but does not define what its folder asks for."""


class BadInput(HarnessError):
    """A file or value from the user cannot be used; the message says what would be right."""


class BadCheckpoint(HarnessError):
    """A checkpoint is truncated, malformed, not finite, or not of this project."""


class BadRow(HarnessError):
    """A stored row does not follow the current schema."""


class CannotWrite(HarnessError):
    """A result could not be stored: the disk is full, or the folder is not writable."""


class DoesNotFit(HarnessError):
    """The candidate needs more memory than there is."""


class Mismatch(HarnessError):
    """A kernel or engine disagrees with its reference, so its time means nothing."""


class WorkerFailed(HarnessError):
    """A timing process died, hung or ran out of memory; the message says which."""


class TrainingFailed(HarnessError):
    """Training diverged or cannot go on from what an interrupted run left."""


class NoTokenizer(HarnessError):
    """A text cannot be turned into tokens: no tokenizer, or no package that reads it."""


class NoMeter(HarnessError):
    """An energy meter exists but cannot be read; the message says how to allow it."""
