#!/usr/bin/env bash
# A machine with a GPU, in 10 minutes at most and with nothing from outside: what it is and what each backend of Keras
# makes of it, into gpu/measured.json after each measurement, and tables on standard output. Weights are random and the
# search is of the digits that scikit-learn has in it, if nothing else is given:
#
#   bash experiments/gpu.sh --dataset flowers17 --weights mobilenet_0_75_224.weights.h5                 # a GPU
#   bash experiments/gpu.sh --quick --backbones mobilenet_0.25 --precisions float32  # a CPU, to see that it works
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p gpu
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv > gpu/device.csv 2> /dev/null || echo "no GPU" > gpu/device.csv
cat gpu/device.csv
[ -e gpu/packages.txt ] || python3 -m pip list > gpu/packages.txt
# What is not done by then is left out; the file has what is. What matters most comes first.
timeout --signal=INT "${KTL_SECONDS:-570}" python3 experiments/benchmark.py --sections accelerator --weights random \
  --parts search passes trials programs steps --backbone mobilenet_0.75 --grid-depths conv_pw_3_relu conv_pw_6_relu \
  conv_pw_9_relu conv_pw_11_relu conv_pw_13_relu all --grid-scales 1 3 10 30 100 --grid-epochs 15 --trials-depth conv_pw_11_relu --json gpu/measured.json "$@"
