import pytest

from domain.bounds import SETTINGS, bound_words, explained
from settings import leaves

BLOB = {"blob_id": "B", "provider_id": "p"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"bound": "depth", "limit": 3, "stopped": [BLOB]}, ["blob B", "provider p", "3", SETTINGS["depth"]]),
        ({"bound": "nodes", "limit": 9, "stopped": [BLOB]}, ["blob B", "provider p", "9", SETTINGS["nodes"]]),
        ({"bound": "runs", "per": "derivation", "limit": 4, "until": "noon", "stopped": [{"derivation_id": "D"}]},
         ["Derivation D", "4 runs", "noon", SETTINGS["derivation"]]),
        ({"bound": "runs", "per": "root", "limit": 4, "until": "noon", "stopped": [{"root_id": "R"}]},
         ["Root R", "4 runs", "noon", SETTINGS["root"]]),
        ({"code": "gone"}, ["gone"]),
    ],
)  # fmt: skip
def test_a_bound_is_said_with_its_place_its_limit_and_its_setting(error: dict[str, object], words: list[str]) -> None:
    said = bound_words(error)
    assert [word for word in words if word not in said] == []
    assert explained(error) == {**error, "detail": said}


def test_the_settings_that_are_named_exist() -> None:
    assert set(SETTINGS.values()) <= {key for key, _, _ in leaves()}
    assert explained(None) is None
