"""For each invariant what breaks it: statements over the world of ``test_invariants.py``, ``$1`` is the user.

The world: ``one`` makes mid of in, ``two`` out of mid, ``book`` joins the outs of a bucket; mid was edited by a person.
Checks of tables that would refuse the plant are dropped in the transaction that plants it, which is never committed.
"""

# ruff: noqa: S608, ISC004 - statements of this module, over names of this module

from __future__ import annotations

from collections.abc import Mapping

_OF = (
    "(select d.{column} from derivations d join providers p on p.id = d.provider_id"
    " where d.user_id = $1 and p.slug = '{slug}')"
)
_OUT = (
    "(select o.blob_id from derivation_outputs o join derivations d on d.user_id = $1 and d.id = o.derivation_id"
    " join providers p on p.id = d.provider_id where o.user_id = $1 and p.slug = '{slug}')"
)
ONE, TWO, BOOK = (_OF.format(column="id", slug=slug) for slug in ("one", "two", "book"))
IN = _OF.format(column="anchor_id", slug="one")
MID, OUT = (_OUT.format(slug=slug) for slug in ("one", "two"))
LAST = "(select id from runs where user_id = $1 and derivation_id = {of} order by attempt desc limit 1)"
CASCADE = "(select id from cascades where user_id = $1 order by created_at limit 1)"
COPY = (
    "insert into runs (user_id, id, derivation_id, cascade_id, provider_id, attempt, execution, status,"
    " definition_digest, used_digest, inputs) select $1, studio_uuid7(), derivation_id, cascade_id, provider_id,"
    " attempt + 1, execution, '{status}', definition_digest, used_digest, {inputs} from runs"
    " where user_id = $1 and id = {run}"
)
BUDGET = "insert into budgets (user_id, id, limit_amount, spent) values ($1, gen_random_uuid(), 100, {spent})"

PLANTED: Mapping[str, tuple[str, ...]] = {
    "(1) pending_inputs and failing equal the recount": (
        f"update derivations set pending_inputs = 7 where id = {TWO}",
    ),
    "(2) an active derivation with an input that it waits for is unsettled": (
        f"update derivations set unsettled = true where id = {ONE}",
        f"update derivations set pending_inputs = 1 where id = {TWO}",
    ),
    "(2) settled below something unsettled: that is failing, and it is said": (
        f"update derivations set unsettled = true where id = {ONE}",
    ),
    "(3) settled and active: no run, no hold": (f"update derivations set hold = 'failed' where id = {ONE}",),
    "(3) settled and active: want equals used": (f"update derivations set used_digest = 'x' where id = {ONE}",),
    "(3) what is asleep is settled": (f"update derivations set hold = 'inactive', unsettled = true where id = {ONE}",),
    "(4) run_id is set if and only if one run is live": (
        f"update runs set status = 'running' where id = {LAST.format(of=ONE)}",
    ),
    "(4) what is held has no run, but for one that waits for a person": (
        f"update derivations set hold = 'approval' where id = {ONE}",
    ),
    "(5) inputs are acyclic": (
        f"insert into derivation_inputs (user_id, derivation_id, blob_id) select $1, {ONE}, {OUT}",
    ),
    "(5) planned is not beyond current": (
        "alter table blobs drop constraint blobs_planned_check",
        f"update blobs set planned_version = version + 1 where id = {MID}",
    ),
    "what is unsettled has an owner": (
        f"update derivations set unsettled = true, owner_cascade_id = gen_random_uuid() where id = {ONE}",
    ),
    "(10) only settled runs have deltas": (f"update runs set status = 'failed' where id = {LAST.format(of=ONE)}",),
    "(11) versions are contiguous and the last delta is the state": (
        f"update blobs set version = version + 1 where id = {MID}",
    ),
    "every hash that is named is stored": (
        f"delete from contents where user_id = $1 and hash = (select document_hash from blobs where id = {MID})",
    ),
    "kept versions are what blobs say": (f"update blobs set patch_bytes = patch_bytes + 1 where id = {MID}",),
    "(12) charges and reservations stay within the budget, and are what it says": (BUDGET.format(spent=7),),
    "(12) an ended run holds no reservation": (
        f"insert into reservations (user_id, run_id, step_id, amount) select $1, {LAST.format(of=ONE)}, 'draft', 5",
    ),
    "(12) nobody waits for money that is there": (
        BUDGET.format(spent=0),
        "update derivations set unsettled = true, hold = 'budget', budget_place = 1, budget_needed = 5"
        f" where id = {ONE}",
    ),
    "only what runs has a place at a service": (
        f"insert into service_slots (service, user_id, run_id) select 'ai-service', $1, {LAST.format(of=ONE)}",
    ),
    "(13) event sequences have no gaps": (
        "delete from events where user_id = $1 and seq = (select min(seq) from events where user_id = $1)",
    ),
    "user_state equals a recount": ("update user_state set blob_count = blob_count + 1 where user_id = $1",),
    # --- about what has been made ---
    "(5) no instance reacts to its own lineage": (
        f"update derivations set instance_id = (select instance_id from derivations where id = {ONE}) where id = {TWO}",
    ),
    "(6) what counts as used was used by a run that settled": (
        f"update derivations set used_digest = 'x' where id = {ONE}",
    ),
    "(6) the inputs that count as used are those of that run": (
        f"update derivation_inputs set used_version = used_version + 1 where derivation_id = {ONE}",
    ),
    "(6) a machine head is what a run of its derivation left": (
        f"update derivation_outputs set machine_run_id = {LAST.format(of=ONE)} where derivation_id = {TWO}",
    ),
    "(8) one vector of versions explains the inputs of a run": (
        # The newest run of the join says that it read the source as well, at a hash that its chapters were not made of.
        COPY.format(
            status="settled",
            inputs=f"inputs || jsonb_build_array(jsonb_build_object('blob_id', {IN}, 'version', 1, 'hash', 'other'))",
            run=LAST.format(of=BOOK),
        ),
    ),
    "(9) one cause makes a derivation once from the same inputs": (
        COPY.format(status="settled", inputs="inputs", run=LAST.format(of=ONE)),
    ),
    "(10) a settled run has one delta for each slot that it changed": (
        "update runs set effects = jsonb_set(effects, '{0,effect}', '\"unchanged\"') where user_id = $1 and id ="
        f" (select run_id from deltas where user_id = $1 and blob_id = {OUT} and to_version = 1)",
    ),
    "(10) a run writes its own outputs and no others": (
        f"update deltas set run_id = {LAST.format(of=BOOK)} where user_id = $1 and blob_id = {OUT} and to_version = 1",
    ),
    "(11) what nobody had changed is what the machine said": (
        f"update deltas set machine_hash = 'x' where user_id = $1 and blob_id = {OUT} and to_version = 1",
    ),
    # --- at rest ---
    "nobody's doorbell is unanswered": (f"update cascades set seq = sent_seq + 1 where id = {CASCADE}",),
    "(12) nothing is reserved": (
        f"insert into reservations (user_id, run_id, step_id, amount) select $1, {LAST.format(of=ONE)}, 'draft', 5",
    ),
    "nobody waits for a place": (
        f"insert into room_waits (user_id, cascade_id, kind, name, cap) select $1, {CASCADE}, 'user', '', 1",
    ),
    "no run is under way": (f"update runs set status = 'running' where id = {LAST.format(of=ONE)}",),
    "(1) the schedule sees what people see": (f"update blobs set planned_version = version - 1 where id = {MID}",),
    "(6) what is unsettled is held, or has an ancestor that is": (
        f"update derivations set unsettled = true where id = {TWO}",
    ),
    "(7) no cascade is open": (f"update cascades set status = 'running' where id = {CASCADE}",),
    "a cascade that left something is partial": (
        f"update derivations set unsettled = true, owner_cascade_id = {CASCADE} where id = {ONE}",
    ),
    "every blob that matches has its derivation": (
        f"update derivations set anchor_id = gen_random_uuid() where id = {TWO}",
    ),
    "joins collect what is in their buckets": (f"delete from derivation_inputs where derivation_id = {BOOK}",),
    "what needs something deleted is retired, or asleep": (f"update blobs set deleted_at = now() where id = {IN}",),
    "what has nothing left to read keeps no output, if its provider says so": (
        f"update providers set on_delete = 'delete' where id = (select provider_id from derivations where id = {BOOK})",
        f"delete from derivation_inputs where derivation_id = {BOOK}",
    ),
    "an instance that is off has no active derivation": (
        "update instances set active = false where user_id = $1 and provider_id ="
        f" (select provider_id from derivations where id = {ONE})",
    ),
}
