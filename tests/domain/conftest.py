from __future__ import annotations

from hypothesis import settings

# Time limits per example fail on a machine that is busy with something else; bounds on cost have their own tests.
settings.register_profile("domain", deadline=None)
settings.load_profile("domain")
