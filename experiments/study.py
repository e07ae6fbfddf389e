"""Compares heads at several freeze depths, with equal data, budget, tries and seeds.

    python experiments/study.py --dataset flowers17 --backbone mobilenet_0.75 \\
        --weights mobilenet_0_75_224.weights.h5 \\
        --depths conv_dw_11_relu,conv_pw_11_relu,conv_dw_12_relu,conv_pw_12_relu,conv_dw_13_relu,all

gave a test top-1 of 96.0 % for `kept` and 94.8 % for `replaced`, each at its best depth: a difference of +1.2 points
(95 % interval -0.9 to +3.2), so none is shown. experiments/results/ has all of its numbers.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
