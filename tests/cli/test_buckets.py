from tests.cli.conftest import Studio
from tests.cli.test_blobs import created


async def test_a_book_is_made_filled_reordered_and_emptied(studio: Studio) -> None:
    bucket = (await studio("bucket", "create", "Sea Tales", "--type", "book", "--metadata", '{"genre": "novel"}')).json
    first = await created(studio, "--content", "one", "--bucket", bucket["id"])
    second = await created(studio, "--content", "two")
    added = await studio("bucket", "add", bucket["id"], second["id"], "--position", "0")
    assert (added.status, added.json["position"]) == (0, 0)
    rows = (await studio("bucket", "blobs", bucket["id"])).json["data"]
    assert [row["blob_id"] for row in rows] == [second["id"], first["id"]]
    removed = await studio("bucket", "remove", bucket["id"], first["id"], "--yes")
    assert (removed.json["removed"], removed.json["cascade_id"] is None) == (True, False)
    assert (await studio("bucket", "get", bucket["id"])).json["blob_count"] == 1


async def test_buckets_are_listed_by_type(studio: Studio) -> None:
    book = (await studio("bucket", "create", "A", "--type", "book")).json
    assert (await studio("bucket", "create", "B", "--no-json")).out.count("-") == 4
    rows = (await studio("bucket", "list", "--type", "book")).json["data"]
    assert [row["id"] for row in rows] == [book["id"]]
    assert book["id"] in (await studio("bucket", "list", "--no-json")).out


async def test_taking_a_blob_out_wants_yes(studio: Studio) -> None:
    bucket = (await studio("bucket", "create", "A")).json
    blob = await created(studio, "--content", "one", "--bucket", bucket["id"])
    assert (await studio("bucket", "remove", bucket["id"], blob["id"])).status == 2
    assert (await studio("bucket", "get", bucket["id"])).json["blob_count"] == 1
