"""2 GB up and down through a real API process; ``python -m bench soak`` runs it."""

import os
from collections.abc import Iterator, Mapping

import pytest

from tests.api.memory import through, watched
from tests.api.processes import api_process
from tests.api.test_streams import GROWTH_MAX, Served
from tests.conftest import Person

LARGE = 2 * 2**30


@pytest.fixture
def served(database_urls: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_process(database_urls, tmp_path_factory.mktemp("api") / "log") as running:
        yield running


@pytest.mark.skipif(not os.environ.get("STUDIO_SOAK_HISTORIES"), reason="a soak: set STUDIO_SOAK_HISTORIES")
async def test_soak_of_two_gigabytes_in_flat_memory(served: Served, user: Person) -> None:
    url, process = served
    await through(url, user.headers, 2**20)  # what every process needs once is not this file's
    async with watched(process.pid) as growth:
        await through(url, user.headers, LARGE)
    print(f"memory: {growth.bytes / 2**20:.0f} MiB more while 2 GiB went up and down", flush=True)  # noqa: T201
    assert growth.bytes < GROWTH_MAX
