#!/bin/sh
# Makes or upgrades Temporal's two databases; safe to repeat. SQL_PASSWORD is in the environment.
set -eu
for database in temporal temporal_visibility; do
  schema=/etc/temporal/schema/postgresql/v12/${database#temporal_}/versioned
  tool="temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user temporal --db $database"
  $tool create
  $tool setup-schema -v 0.0
  $tool update-schema -d "$schema"
done
