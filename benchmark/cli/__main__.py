"""``python -m superbit.benchmark.cli``: the command line."""

import sys

from superbit.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
