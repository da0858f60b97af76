"""The graph of the e2e tests itself: what it is made of when nothing goes wrong."""

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import DERIVATIONS, GRAPH
from tests.e2e.people import Person


async def test_a_cascade_over_33_derivations_ends_with_everything_fresh(person: Person, auditor: Auditor) -> None:
    await person.register(GRAPH)
    root = await person.root(await person.bucket())
    await auditor.at_rest(person)
    assert await auditor.value("select count(*) from derivations where user_id = $1", person.user_id) == DERIVATIONS
    await person.mark(root["id"], "one")
    await auditor.at_rest(person)
    await auditor.everything_holds(person)
