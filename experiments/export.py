"""Writes a run's model for use elsewhere, and compares it with the run in a fresh process.

    python experiments/export.py --run runs/digits --output model --calibrate

gave, of version 0.1's run of the command in experiments/run.py, a SavedModel with a calibration error of 0.013, 0.009
before: a temperature that is fitted to 143 validation photos need not help.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
