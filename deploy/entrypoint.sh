#!/bin/sh
# One image, one word per process: api, worker, migrate, ai. `exec` hands signals on, so that a stop is clean.
set -eu
case "${1:-}" in
  api | worker | ai) exec python -m "$@" ;;
  migrate)
    shift
    exec python -m migrations "$@"
    ;;
  *)
    echo "usage: api | worker | migrate | ai [options]" >&2
    exit 64
    ;;
esac
