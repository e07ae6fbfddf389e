"""`python -m ktl`."""

import sys

from ktl.cli import main

sys.exit(main())
