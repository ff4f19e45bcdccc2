"""Makes `releases`, of the tests of the policy, importable by the tests beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))
