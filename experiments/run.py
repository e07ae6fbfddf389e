"""Fine-tunes a backbone that keeps its ImageNet layer.

    python experiments/run.py --dataset digits --backbone efficientnet_lite0

gave a test top-1 of 0.975 with seed 0, in a minute and a half on two CPU cores.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
