"""What was offered stays in dispute until somebody decides, whatever runs come in between."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.disputes import disputed_head
from domain.documents import Document
from domain.merge import merge
from domain.schemas import Schema
from domain.settlements import settle_output
from domain.works import RunOutput, SettledOutput
from tests.domain.values import json_document, text_document

ANYTHING = Schema(slug="any-v1", version="1.0.0", definition=True)
WORDS = ("harbour", "lantern", "violin", "orchard", "compass", "glacier", "thunder", "meadow")


def said(who: str, about: int, turn: int) -> str:
    """A paragraph of its own: nobody else writes it, and it is like no other one."""
    word = WORDS[about]
    return f"The {word} of {who} in turn {turn}: {word} here, {word} there, a {word} for everybody who asks."


def lines(paragraphs: list[str]) -> str:
    return "\n\n".join(paragraphs)


def document(paragraphs: list[str], *, text: bool) -> Document:
    return text_document(lines(paragraphs)) if text else json_document({"text": lines(paragraphs)})


def body(found: Document) -> str:
    return str(found.body if found.is_text else found.body["text"])


def settled(
    current: Document, machine: Document, staged: Document, policy: str, disputed: Any = ()
) -> tuple[SettledOutput, ...]:
    output = RunOutput(
        slot="keep", blob_id=UUID(int=1), version=1, deleted=False, current=current, machine=machine,
        schema=ANYTHING, on_conflict=policy, disputed=disputed,
    )  # fmt: skip
    return settle_output(output, staged)


@pytest.mark.parametrize(
    ("head", "conflict", "before"),
    [
        ({"a": "new"}, {"pointer": "/data/a", "base": "old", "ours": "m", "theirs": "new"}, {"a": "old"}),
        ({"a": "new", "b": 1}, {"pointer": "/data/a", "ours": "m", "theirs": "new"}, {"b": 1}),
        ({"b": 1}, {"pointer": "/data/a", "base": "old", "ours": "m"}, {"a": "old", "b": 1}),
        ({"a/b": "x\n\nnew"}, {"pointer": "/data/a~1b", "paragraph": 1, "base": "old", "theirs": "new"},
         {"a/b": "x\n\nold"}),
        ({"a": "x\n\nnew"}, {"pointer": "/data/a", "paragraph": 1, "ours": "m", "theirs": "new"}, {"a": "x"}),
        ({"a": "new\n\nnew"}, {"pointer": "/data/a", "paragraph": 1, "base": "old", "theirs": "new"},
         {"a": "new\n\nnew"}),
        ({"a": [{"k": 1}, {"k": 2, "v": 9}]},
         {"pointer": "/data/a", "item": 2, "base": {"k": 2}, "theirs": {"k": 2, "v": 9}}, {"a": [{"k": 1}, {"k": 2}]}),
        ({"a": [{"t": "new"}]}, {"pointer": "/data/a/0/t", "base": "old", "theirs": "new"}, {"a": [{"t": "old"}]}),
        ({"a": []}, {"pointer": "/data/a/7/t", "base": "old", "theirs": "new"}, {"a": []}),
        ({"a": ["y", "x"]}, {"pointer": "/data/a", "about": "order", "base": ["x", "y"], "theirs": ["y", "x"]},
         {"a": ["y", "x"]}),
    ],
    ids=["field", "added", "removed", "paragraph", "inserted", "repeated", "item", "in-item", "gone", "order"],
)  # fmt: skip
def test_a_place_in_dispute_is_put_back(head: Any, conflict: dict[str, Any], before: Any) -> None:
    given_ = json_document(head)
    assert disputed_head(given_, [conflict]).body == before
    assert given_.body == head, "nothing is changed in place"


def test_the_whole_document_is_put_back_too() -> None:
    head = json_document({"a": 2}, title="New", tags=["x"], metadata={"m": 1})
    conflicts: list[dict[str, object]] = [
        {"pointer": "/data", "base": {"a": 1}, "ours": {"a": 0}, "theirs": {"a": 2}},
        {"pointer": "/title", "base": "Old", "ours": "Mine", "theirs": "New"},
    ]
    found = disputed_head(head, conflicts)
    assert (found.body, found.title, found.tags, found.metadata) == ({"a": 1}, "Old", ("x",), {"m": 1})


def test_without_a_dispute_it_is_the_head() -> None:
    head = json_document({"a": 1}, title="T")
    assert disputed_head(head, []) == head


edits = st.lists(
    st.tuples(st.sampled_from(["machine", "person", "delete", "insert"]), st.integers(0, 5)), min_size=1, max_size=12
)


@given(steps=edits, text=st.booleans(), policy=st.sampled_from(["keep_human", "take_machine", "wait"]))
def test_through_many_regenerations_nothing_that_anybody_said_last_is_lost(
    steps: list[tuple[str, int]], *, text: bool, policy: str
) -> None:
    """After each run: every paragraph of the person's is in the text or in what the run says of conflicts; every one
    that the machine says now is in the text or offered, unless the person removed or replaced what it was made from and
    the machine has not changed it since."""
    machine = [said("the machine", number, 0) for number in range(6)]
    head = current = document(machine, text=text)
    offered: tuple[Any, ...] = ()
    for turn, (what, where) in enumerate(steps, start=1):
        if what == "machine":
            machine = [said("the machine", where, turn) if n == where else one for n, one in enumerate(machine)]
            staged = document(machine, text=text)
            human = [one for one in body(current).split("\n\n") if "person" in one]
            made = settled(current, head, staged, policy, offered)
            conflicts = [conflict for one in made for conflict in one.conflicts]
            for one in made:
                if one.effect in ("change", "head"):
                    current, head = one.document, one.machine
            open_ = [one for one in made if one.effect in ("offer", "hold")]
            offered = tuple(conflict for one in open_ for conflict in one.conflicts)
            shown = body(current) + "".join(str(conflict.get("ours", "")) for conflict in conflicts)
            assert all(paragraph in shown for paragraph in human), "a person's words are lost"
            anywhere = body(current) + "".join(body(one.document) for one in open_)
            assert machine[where] in anywhere, "what the machine says now is nowhere to be seen"
            continue
        found = body(current).split("\n\n")
        at = where % len(found) if found else 0
        if what == "person":
            found[at : at + 1] = [said("a person", where, turn)]
        elif what == "insert":
            found.insert(at, said("a person", 6, turn))
        elif len(found) > 1:
            del found[at]
        current = document(found, text=text)


@given(runs=st.integers(1, 5), text=st.booleans())
def test_an_offer_survives_any_number_of_clean_runs(runs: int, *, text: bool) -> None:
    machine = [said("the machine", number, 0) for number in range(4)]
    head = document(machine, text=text)
    mine = said("a person", 1, 0)
    current = document([machine[0], mine, *machine[2:]], text=text)
    machine[1] = said("the machine", 1, 1)
    offered: tuple[Any, ...] = ()
    for turn in range(runs):
        machine[3] = said("the machine", 3, turn + 1)
        done, offer = settled(current, head, document(machine, text=text), "keep_human", offered)
        current, head, offered = done.document, done.machine, tuple(offer.conflicts)
        assert body(current).split("\n\n") == [machine[0], mine, *machine[2:]]
        assert body(offer.document).split("\n\n") == machine
        assert [(c["ours"], c["theirs"]) for c in offered] == [(mine, machine[1])]
        assert (done.conflicts == ()) == (turn > 0), "the run itself has a conflict only once"
    # The person takes it over: nothing is left to offer.
    machine[3] = said("the machine", 3, runs + 1)
    taken = document([machine[0], machine[1], *body(current).split("\n\n")[2:]], text=text)
    [last] = settled(taken, head, document(machine, text=text), "keep_human", offered)
    assert body(last.document).split("\n\n") == machine


def moved(found: list[str]) -> list[str]:
    return [found[2], *found[:2], *found[3:]]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda found: [*found[:1], *found[2:]], "0' 2 3'"),
        (lambda found: [found[0], "mine", *found[1:]], "0' mine 1 2 3'"),
        (lambda found: [found[0], "first half", "second half", *found[2:]], "0' first half second half 2 3'"),
    ],
    ids=["delete", "insert", "split"],
)
def test_what_a_person_did_to_the_shape_of_a_text_stays(edit: Any, expected: str) -> None:
    machine = [said("the machine", number, 0) for number in range(4)]
    later = [said("the machine", 0, 1), *machine[1:3], said("the machine", 3, 1)]
    current = document(edit(machine), text=True)
    [made] = settled(current, document(machine, text=True), document(later, text=True), "keep_human")
    names = {later[0]: "0'", later[3]: "3'", machine[1]: "1", machine[2]: "2"}
    shown = " ".join(names.get(one, one) for one in body(made.document).split("\n\n"))
    assert shown == expected
    assert made.conflicts == ()


@pytest.mark.parametrize("edit", ["move", "join"])
def test_paragraphs_that_were_moved_or_joined_lose_nothing(edit: str) -> None:
    machine = [said("the machine", number, 0) for number in range(4)]
    own = moved(machine) if edit == "move" else [f"{machine[0]} {machine[1]}", *machine[2:]]
    later = [*machine[:3], said("the machine", 3, 1)]
    made = settled(document(own, text=True), document(machine, text=True), document(later, text=True), "keep_human")
    shown = body(made[0].document)
    for paragraph in (*machine[:3], later[3]):
        assert paragraph in shown


def test_a_merge_beyond_the_bounds_of_a_document_is_a_conflict_and_no_failure() -> None:
    """Each side's metadata fits, both together do not."""
    base = json_document({"a": 1})
    ours = json_document({"a": 1}, metadata={"mine": "x" * 40_000})
    staged = json_document({"a": 2}, metadata={"machine": "y" * 40_000})
    with pytest.raises(Exception, match="metadata"):
        merge(base, ours, staged)
    done, offer = settled(ours, base, staged, "keep_human")
    assert (done.effect, done.document, offer.document) == ("head", ours, staged)
    assert [conflict["pointer"] for conflict in offer.conflicts] == ["/data", "/metadata"]
    [taken] = settled(ours, base, staged, "take_machine")
    assert taken.document == staged
    assert taken.conflicts[1]["ours"] == {"mine": "x" * 40_000}, "what was overwritten is recorded"
