"""``python -m mechproc`` is the ``mechproc`` command."""

import sys

from mechproc.cli import main

if __name__ == "__main__":
    sys.exit(main())
