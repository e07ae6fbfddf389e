"""`python -m ktl`."""

import sys

from ktl.cli.main import main

sys.exit(main())
