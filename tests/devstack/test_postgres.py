from __future__ import annotations

from devstack.postgres import with_role


def test_a_url_for_another_role_keeps_host_database_and_options() -> None:
    url = "postgresql://boss:p%40ss@db.example:5433/app?sslmode=require"
    assert with_role(url, "studio_app", "x") == "postgresql://studio_app:x@db.example:5433/app?sslmode=require"
    assert with_role("postgresql://db.example/app", "studio_app", "x") == "postgresql://studio_app:x@db.example/app"
