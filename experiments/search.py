"""Searches freeze depth and scale: `python experiments/search.py --dataset stanford_dogs`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
