"""What the tests of activities share: a user whose schedule is real, and the environment that Temporal would give."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from tests.storage.conftest import engine

__all__ = ["engine"]


@pytest.fixture
def environment() -> ActivityEnvironment:
    """Temporal's stand-in around one activity: heartbeats, attempts, cancellation."""
    return ActivityEnvironment()
