"""The base class of all errors that a user can mend."""


class MufinError(Exception):
    """What is wrong, the value and the remedy, in one sentence. Stages print it and exit with 1."""
