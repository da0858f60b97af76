#!/bin/sh
# Makes the namespace, its retention and the search attributes that the Temporal UI shows; safe to repeat.
set -eu
export TEMPORAL_NAMESPACE=memmie-studio
temporal operator namespace describe >/dev/null 2>&1 || temporal operator namespace create --retention 30d
temporal operator namespace update --retention 30d
known=$(temporal operator search-attribute list)
for name in StudioUser StudioBlob StudioProvider StudioCascade StudioOutcome; do
  echo "$known" | grep -qw "$name" || temporal operator search-attribute create --name "$name" --type Keyword
done
