"""Arrays whose items have a key: what they hold by key, and the order that three versions of one agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from domain.canonical import canonical

Key = bytes
"""The canonical form of an item's key, which tells 1 from "1" and from true."""


def by_member(name: str) -> Callable[[Any], Key | None]:
    """Return what reads an item's key from its member ``name``; None for an item that has no such scalar."""

    def key(item: Any) -> Key | None:
        value = item.get(name) if isinstance(item, dict) else None
        return None if value is None or isinstance(value, (dict, list)) else canonical(value)

    return key


def by_itself(item: Any) -> Key | None:
    """Return an item's key in a set of texts, such as tags: the text."""
    return canonical(item) if isinstance(item, str) else None


def keyed(items: Any, key: Callable[[Any], Key | None]) -> dict[Key, Any] | None:
    """Return an array's items by key, in order; None if it is no array, or an item has no key or another's."""
    if not isinstance(items, list):
        return None
    found: dict[Key, Any] = {}
    for item in items:
        name = key(item)
        if name is None or name in found:
            return None
        found[name] = item
    return found


def common_order(
    base: Mapping[Key, Any], ours: Mapping[Key, Any], theirs: Mapping[Key, Any], remaining: set[Key]
) -> tuple[list[Key], list[Key]]:
    """Return the two orders, ours first, of the items that both sides have and that remain.

    They are one and the same where only one side changed the order; else there is a conflict about it.
    """
    shared = remaining & ours.keys() & theirs.keys()
    own, its, before = ([name for name in side if name in shared] for side in (ours, theirs, base))
    if own == its:
        return own, own
    old = set(before)
    own_moved, its_moved = ([name for name in order if name in old] != before for order in (own, its))
    if own_moved == its_moved:
        return own, its
    return (own, own) if own_moved else (its, its)


def arranged(
    order: Sequence[Key], ours: Mapping[Key, Any], theirs: Mapping[Key, Any], remaining: set[Key]
) -> list[Key]:
    """Return all remaining items: those in ``order``, and after each of them what one side alone has there."""
    placed = set(order)
    alone = [dict(_following(side, placed, remaining)) for side in (ours, theirs)]
    result: list[Key] = []
    for name in (None, *order):
        result += [] if name is None else [name]
        # By name, so that the order does not depend on which side is which.
        for stretch in sorted(side[name] for side in alone if name in side):
            result += stretch
    return result


def _following(
    side: Mapping[Key, Any], placed: set[Key], remaining: set[Key]
) -> Iterator[tuple[Key | None, list[Key]]]:
    after: Key | None = None
    stretch: list[Key] = []
    for name in side:
        if name in placed:
            if stretch:
                yield after, stretch
            after, stretch = name, []
        elif name in remaining:
            stretch.append(name)
    if stretch:
        yield after, stretch
