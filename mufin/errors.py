"""What a person did not expect, said in one sentence."""


class MufinError(Exception):
    """One clear sentence: what is wrong, the value, the remedy. Stages print it and exit with 1."""
