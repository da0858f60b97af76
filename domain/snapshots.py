"""Which versions are kept whole: a bound on what reading costs, and on what keeping does.

Any version is read from the nearest kept one below it and the patches since. Keeping one every ``every`` versions
bounds the patches; keeping one as soon as the patches since the last weigh as much as the document bounds what
they cost to read, and makes kept documents at most double what the patches alone would take.
"""

from __future__ import annotations


def keep(document_bytes: int, *, patch_bytes: int, versions: int, every: int) -> bool:
    """Whether a version is kept whole.

    Its document has ``document_bytes`` and would be reached from the last kept one by ``versions`` patches, its own
    included, of ``patch_bytes`` in all.
    """
    return versions >= every or patch_bytes >= document_bytes
