from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.ids import (
    SYSTEM_USER,
    UserId,
    derivation_id,
    instance_id,
    new_id,
    output_blob_id,
    parse_id,
    provider_key,
    schema_key,
)

slugs = st.text(st.sampled_from("ab:-v1"), max_size=5)
users = st.sampled_from([SYSTEM_USER, UserId(UUID(int=1))])


def test_new_ids_are_uuids_of_version_7_in_order() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert {found.version for found in ids} == {7}
    assert {type(found) for found in ids} == {UUID}


def test_derived_ids_never_change_because_they_are_stored() -> None:
    provider = provider_key(SYSTEM_USER, "text-expansion")
    instance = instance_id(UserId(UUID(int=7)), provider)
    derivation = derivation_id(instance, UUID(int=8))
    found = [
        provider,
        instance,
        derivation,
        output_blob_id(derivation, "create_blob"),
        schema_key(SYSTEM_USER, "text-v1", 1),
    ]
    assert [str(one) for one in found] == PINNED


PINNED = [
    "22ee112e-d024-8aea-ac2f-e2ee2e0d4ac6",
    "65092351-415d-8770-913e-a2997deee442",
    "343d4b2c-35f4-8394-8efd-82c62dee0791",
    "b7348c53-4e3c-8cd7-9a7f-2774600cb5e2",
    "f0dc1ca2-8d69-8ae5-9b52-1d1e616f02f1",
]


@given(
    st.tuples(users, slugs, st.sampled_from([1, 11, "1", "1.0"])),
    st.tuples(users, slugs, st.sampled_from([1, 11, "1", "1.0"])),
)
def test_different_things_have_different_ids(
    left: tuple[UserId, str, int | str], right: tuple[UserId, str, int | str]
) -> None:
    same_schema = (left[0], left[1], str(left[2])) == (right[0], right[1], str(right[2]))
    assert (schema_key(*left) == schema_key(*right)) == same_schema
    assert (provider_key(*left[:2]) == provider_key(*right[:2])) == (left[:2] == right[:2])
    assert UUID(str(provider_key(*left[:2]))) != UUID(str(schema_key(*left)))


def test_a_version_that_would_make_two_schemas_one_is_refused() -> None:
    with pytest.raises(ValueError, match="colon"):
        schema_key(SYSTEM_USER, "a", "1:a")


def test_ids_are_read_in_their_36_characters_only() -> None:
    known = uuid4()
    assert parse_id(str(known), "/id") == parse_id(str(known).upper(), "/id") == known
    for value in (known.hex, f"{{{known}}}", f"urn:uuid:{known}", f"{known}\n", "", "text-v1", None, 7, known):
        with pytest.raises(Invalid) as caught:
            parse_id(value, "/parent_id")
        assert caught.value.problem_code == "invalid_id"
        assert caught.value.faults[0].pointer == "/parent_id"
