"""The ten stages of MUFIN as scripts that DVC runs."""

import sys

from mufin import interrupts

# Python is looking for the stage of `python -m pipeline.<stage>`, whose imports take seconds.
if sys.argv[0] == "-m":
    interrupts.watch()
