"""How much the cached frozen prefix saves: `python experiments/benchmark.py --dataset PATH --weights FILE [--quick]`.

Every way of doing the same work runs in a process of its own, one at a time, interleaved over the rounds; reported are
medians of wall seconds, ratios to plain Keras, and the largest peak memory. Photos are decoded once for all of them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

WAYS = ("plain", "cached", "warm", "predict")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--backbone", default="mobilenet_0.75")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--depths", nargs="+", default=["conv_pw_11_relu", "all"])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of two epochs, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write all measurements here")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.epochs = 1, 2
    measured = [
        {"depth": depth, "way": way, "round": number, **measure(way, depth, options)}
        for number in range(options.rounds)
        for depth in options.depths
        for way in WAYS
    ]
    for line in table(measured, options.depths):
        print(line)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"settings": vars(options), "measured": measured}, file, indent=2)
    return 0


def measure(way: str, depth: str, options) -> dict:
    """Runs one way in a fresh process; its seconds and peak MiB."""
    settings = json.dumps({"way": way, "depth": depth, **vars(options)})
    command = [sys.executable, Path(__file__).with_name("benchmark_ways.py"), settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    print(f"{depth} {way}: {done.stdout.strip()}", file=sys.stderr)
    return json.loads(done.stdout)


def table(measured: list[dict], depths: list[str]) -> list[str]:
    lines = [
        "| frozen up to | way | seconds | times faster than plain | test top-1 | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for depth in depths:
        rows = {way: [m for m in measured if (m["depth"], m["way"]) == (depth, way)] for way in WAYS}
        plain = median(m["seconds"] for m in rows["plain"])
        for way, found in rows.items():
            seconds = median(m["seconds"] for m in found)
            top1 = f"{found[0]['top1']:.3f}" if "top1" in found[0] else ""
            peak = max(m["peak_mib"] for m in found)
            lines.append(f"| {depth} | {way} | {seconds:.1f} | {plain / seconds:.1f} | {top1} | {peak:.0f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
