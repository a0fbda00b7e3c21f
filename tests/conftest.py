"""What every test can count on: the project's root is importable and known."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture
def project_root() -> Path:
    """The folder that holds train.py."""
    return ROOT
