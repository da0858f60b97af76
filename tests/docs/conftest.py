"""The running stack that pages marked ``<!-- run on the stack -->`` are executed against."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import control
from devstack.ports import choose
from tests.e2e.model import NAME, language_model

FOREIGN = ("STUDIO_", "DATABASE_", "AI_", "MODEL_", "NATS_", "S3_", "TEMPORAL_")


@pytest.fixture(scope="session")
def stack_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A whole Studio as a reader has it after ``make dev``; only its language model is a quick one."""
    folder: Path = tmp_path_factory.mktemp("docs")
    with language_model() as url:
        # Only the supervisor is to see these: other tests of this process have ports of their own.
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(FOREIGN)]:
                patch.delenv(name)
            for name, value in (("MODEL_URL", url), ("MODEL_NAME", NAME), ("STUDIO_PORT", str(choose(set())))):
                patch.setenv(name, value)
            supervision = control.supervise(folder / ".studio", detached=False)
        try:
            said = []
            for event in supervision.events():
                said.append(event)
                if event.event == "up":
                    break
            assert said[-1].event == "up", said
            yield {"STUDIO_STATE_DIR": str(folder), "TMPDIR": str(folder)}
        finally:
            supervision.stop()
            supervision.wait()
