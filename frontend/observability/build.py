"""What runs."""

from __future__ import annotations

import platform

VERSION = "0.1.0"
"""Of the service; pyproject.toml has the same (a test)."""
PYTHON = platform.python_version()
