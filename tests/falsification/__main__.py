"""python -m tests.falsification [PROJECT]; see the package."""

import sys

from tests.falsification.campaign import main

if __name__ == "__main__":
    sys.exit(main())
