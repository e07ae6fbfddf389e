"""Shows runs, searches or a study as one HTML page.

    python experiments/report.py runs/digits --output report.html

gave one file that needs nothing else to be read: scores, curves, mistakes with their photos, settings.
"""

import sys

from ktl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
