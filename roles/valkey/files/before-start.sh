#!/usr/bin/env bash
# Laid by the role c5c3.ha.valkey; runs before each start of valkey-server, as root.
#
# A primary that died and is back at once would take writes while the Sentinels are choosing another: what it acknowledged then would be
# lost. So it waits until they have chosen, and follows whom they chose. It starts as the primary when nobody could be chosen, or nobody was.
# A replica cannot be chosen (priority 0) until it has heard from the primary: after the power failed everywhere, nobody can tell which
# replica has what was acknowledged last, and the primary has it all. after-start.sh ends that.
set -u
# shellcheck source=/dev/null
. /usr/local/lib/c5c3-valkey/start.env
conf=/etc/valkey/valkey.conf
password() { awk -v key="$1" '$1 == key { gsub(/"/, "", $2); print $2; exit }' "$2"; }
servers=$(password primaryauth /etc/valkey/settings.conf)
sentinels=$(password requirepass /etc/valkey/sentinel.conf 2>/dev/null)
# shellcheck disable=SC2086 # words, on purpose
cli() { { timeout 2 $CLI "$@" | tr -d '\r'; } 2>/dev/null; }

others() {
  local host
  for host in $OTHERS; do
    REDISCLI_AUTH=$servers cli -h "$host" -p "$PORT" INFO replication &
  done
  wait
}
told() {
  local host
  for host in $ADDRESS $OTHERS; do
    REDISCLI_AUTH=$sentinels cli -h "$host" -p "$SENTINEL_PORT" SENTINEL GET-MASTER-ADDR-BY-NAME "$NAME" | sed -n 1p &
  done
  wait
}

deadline=$((SECONDS + PATIENCE))
silent=0
while ! grep -q '^replicaof ' "$conf"; do
  said=$(told | grep -E '^[0-9.]+$' | sort | uniq -c | sort -rn | head -1)
  read -r votes chosen <<<"${said:-0 nobody}"
  if [ "$votes" -ge "$QUORUM" ] && [ "$chosen" != "$ADDRESS" ]; then
    echo "the Sentinels chose $chosen: following it"
    printf 'replicaof %s %s\n' "$chosen" "$PORT" >>"$conf"
  elif [ ! -d /var/lib/valkey/appendonlydir ]; then
    # empty, it would have the replicas throw their data away
    echo "/var/lib/valkey has lost its data: waiting for the Sentinels to choose another primary; when they cannot, use c5c3.ha.recover_valkey"
    sleep 1
  elif [ $SECONDS -ge $deadline ]; then
    break
  elif [ "$votes" -eq 0 ] || ! others | grep -qE '^(role:master|slave_priority:[1-9])'; then
    # on a busy host an answer may come too late once
    [ $((silent += 1)) -lt 3 ] || break
    sleep 0.1
  else
    silent=0
    sleep 0.2
  fi
done
sed -i '/^replica-priority /d' "$conf"
if grep -q '^replicaof ' "$conf"; then echo "replica-priority 0" >>"$conf"; fi
