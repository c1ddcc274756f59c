#!/usr/bin/env bash
# Laid by the role c5c3.ha.valkey: lets the Sentinels choose this server once it has all of the primary's data; see before-start.sh.
set -u
# shellcheck source=/dev/null
. /usr/local/lib/c5c3-valkey/start.env
REDISCLI_AUTH=$(awk '$1 == "primaryauth" { print $2; exit }' /etc/valkey/settings.conf)
export REDISCLI_AUTH
# shellcheck disable=SC2086 # words, on purpose
cli() { timeout 5 $CLI -h "$ADDRESS" -p "$PORT" "$@" 2>/dev/null; }
until cli INFO replication | grep -qE '^(role:master|master_link_status:up)'; do sleep 0.2; done
cli CONFIG SET replica-priority "$PRIORITY"
