"""Searches freeze depth, scale and other settings.

    python experiments/search.py --dataset flowers17 --backbone mobilenet_0.75 \\
        --weights mobilenet_0_75_224.weights.h5 --oracle hyperband --epochs 10 --augmentation none --patience 0 \\
        --cache on --space "freeze_depth=conv_pw_9_relu,conv_pw_11_relu,conv_pw_13_relu,all scale=1,3,10,30"

is Hyperband over 16 combinations; docs/search.md tells of the rest.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
