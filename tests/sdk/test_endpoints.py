import json
from pathlib import Path

import pytest

from sdk import NoEndpoints, find_endpoints
from sdk.endpoints import read_endpoints


def write(folder: Path, **values: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "endpoints.json"
    path.write_text(json.dumps({"api_url": "http://file:1/", "api_key": "file-key", "admin_key": "root-key", **values}))
    return path


def test_the_environment_comes_first(tmp_path: Path) -> None:
    write(tmp_path / ".studio")
    found = find_endpoints({"STUDIO_API_URL": "http://there:2/", "STUDIO_API_KEY": "mine"}, tmp_path)
    assert (found.api_url, found.api_key, found.source) == ("http://there:2", "mine", "STUDIO_API_URL")


def test_the_file_of_another_api_is_not_asked_for_its_key(tmp_path: Path) -> None:
    write(tmp_path / ".studio")
    assert find_endpoints({"STUDIO_API_URL": "http://there:2"}, tmp_path).api_key is None


def test_the_current_folder_is_looked_at_last(tmp_path: Path) -> None:
    path = write(tmp_path / ".studio")
    found = find_endpoints({}, tmp_path)
    assert (found.api_url, found.api_key, found.admin_key) == ("http://file:1", "file-key", "root-key")
    assert found.source == str(path)
    assert find_endpoints({"STUDIO_API_KEY": "other"}, tmp_path).api_key == "other"


@pytest.mark.parametrize("inside", ["", ".studio"])
def test_the_state_folder_is_named_itself_or_holds_it(tmp_path: Path, inside: str) -> None:
    write(tmp_path / "here" / ".studio", api_url="http://wrong")
    write(tmp_path / "state" / inside)
    found = find_endpoints({"STUDIO_STATE_DIR": str(tmp_path / "state")}, tmp_path / "here")
    assert found.api_url == "http://file:1"


@pytest.mark.parametrize("content", [None, "", "[]", "{", "{}"])
def test_without_a_running_stack_the_error_names_the_places_and_the_fix(tmp_path: Path, content: str | None) -> None:
    (tmp_path / ".studio").mkdir()
    if content is not None:
        (tmp_path / ".studio" / "endpoints.json").write_text(content)
    with pytest.raises(NoEndpoints, match=r"\.studio/endpoints\.json.*studio dev.*STUDIO_API_URL"):
        find_endpoints({}, tmp_path)
    with pytest.raises(NoEndpoints):
        read_endpoints(tmp_path / ".studio" / "endpoints.json")
