"""`ktl` and `python -m ktl`."""

import sys

INTERRUPTED = 130


def main() -> int:
    """See `ktl.cli.main.main`; Ctrl-C while that is imported, for a tenth of a second, ends quietly too."""
    try:
        from ktl.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
