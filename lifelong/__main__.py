"""``python -m lifelong`` is the command ``lifelong``."""

import sys

from lifelong.cli import main

sys.exit(main())
