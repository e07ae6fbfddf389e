"""Shows runs, searches or a study as one HTML page: `python experiments/report.py runs/... --output report.html`."""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
