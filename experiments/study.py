"""Compares heads and freeze depths: `python experiments/study.py --dataset stanford_dogs`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
