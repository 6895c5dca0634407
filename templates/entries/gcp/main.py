"""The Google Cloud function: the same workflows as everywhere.

What stands in for the outside world writes files, and a function may do so in one place only, which does not outlive
it: provide what really sends, books or files before you rely on it.
"""

from __future__ import annotations

import os
import tempfile

from app import app

import everstep_gcp

os.chdir(tempfile.gettempdir())

main = everstep_gcp.handler(app)
