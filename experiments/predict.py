"""Labels photos with a trained model.

    python experiments/predict.py --model runs/flowers photo.jpg folder

gave a label and its probability for each photo, on two CPU cores 1.4 times as fast as Keras' `predict` on photos that
are decoded already (experiments/benchmark.py --sections use).
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
