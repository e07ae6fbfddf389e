"""Compares heads at several freeze depths, with equal data, budget, tries and seeds.

    python experiments/study.py --dataset flowers17 --backbone mobilenet_0.75 \\
        --weights mobilenet_0_75_224.weights.h5 --seeds 3 \\
        --heads kept,kept_softened,replaced,replaced_normalized --depths conv_pw_12_relu,conv_pw_13_relu,all

gave a test top-1 of 95.4 % for `kept` and 95.3 % for `replaced`, each at its best depth: a difference of +0.1 points
(95 % interval -1.7 to +1.9), so none is shown. experiments/results/ has all of its numbers.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
