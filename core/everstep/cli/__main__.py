"""`python -m everstep.cli`."""

from __future__ import annotations

import sys

from everstep.cli import main

sys.exit(main())
