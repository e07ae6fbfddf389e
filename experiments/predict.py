"""Labels photos with a trained model: `python experiments/predict.py --model runs/DIR photo.jpg FOLDER`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
