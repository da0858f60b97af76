#!/bin/sh
# Runs once, on an empty volume: Temporal gets a role of its own, which makes its two databases.
set -eu
psql --username "$POSTGRES_USER" --dbname postgres --set ON_ERROR_STOP=1 \
  --set password="$TEMPORAL_DB_PASSWORD" <<'SQL'
create role temporal login createdb password :'password';
SQL
