"""Writes a run's model for use elsewhere: `python experiments/export.py --run runs/... --output DIR`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
