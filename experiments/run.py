"""Fine-tunes a backbone that keeps its ImageNet layer: `python experiments/run.py --dataset stanford_dogs`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
