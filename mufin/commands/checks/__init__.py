"""The checks of `mufin doctor`."""
