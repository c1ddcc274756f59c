#!/bin/sh
# What an OVN member has: prints JSON with the free bytes of /var/lib, the packages of OVN, which units run and which start with the host and,
# for each database named (nb, sb), its cluster as the file and the running server tell it. Changes nothing.
set -u
lines() { sed 's/.*/"&"/' | paste -sd,; }
units="ovn-ovsdb-server-nb ovn-ovsdb-server-sb ovn-northd ovn-central"
running=$(for unit in $units; do systemctl is-active --quiet "$unit" && echo "$unit"; done | lines)
enabled=$(for unit in $units; do systemctl is-enabled --quiet "$unit" 2>/dev/null && echo "$unit"; done | lines)
packages=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 'ovn-*' 2>/dev/null | sed -n 's/ installed$//p' | lines)
printf '{"free": %s, "packages": [%s], "running": [%s], "enabled": [%s], "databases": {' \
    "$(df --output=avail -B1 /var/lib | tail -1)" "$packages" "$running" "$enabled"
comma=""
for key in "$@"; do
    case $key in
        nb) name=OVN_Northbound ;;
        *) name=OVN_Southbound ;;
    esac
    file=/var/lib/ovn/ovn${key}_db.db
    control=/run/ovn/ovn${key}_db.ctl
    present=false standalone=false cid="" records=0
    if [ -e "$file" ]; then
        present=true
        cid=$(ovsdb-tool db-cid "$file" 2>/dev/null) || cid=""
        if ovsdb-tool db-is-standalone "$file" 2>/dev/null; then
            standalone=true
            records=$(ovsdb-tool show-log "$file" 2>/dev/null | grep -c '^record')
        fi
    fi
    status=""
    [ -S "$control" ] && status=$(timeout 10 ovs-appctl -t "$control" cluster/status "$name" 2>/dev/null)
    printf '%s"%s": {"present": %s, "standalone": %s, "records": %s, "cid": "%s", ' "$comma" "$key" $present $standalone "$records" "$cid"
    printf '%s\n' "$status" | awk '
        /^Status: /   { state = substr($0, 9) }
        /^Role: /     { role = $2 }
        /^Leader: /   { leader = $2 }
        /^Term: /     { term = $2 }
        /^Election timer: /  { timer = $3 }
        /^Log: /      { gsub(/[\[\],]/, " "); end = $3 }
        /^Entries not yet committed: / { pending = $5 }
        /^Servers:/   { listing = 1; next }
        /^[A-Z]/      { listing = 0 }
        listing && /^ +[0-9a-f]+ \(/ {
            id = $1
            match($0, /at (ssl|tcp):[^)]*\)/)
            address = substr($0, RSTART + 3, RLENGTH - 4)
            sub(/^(ssl|tcp):/, "", address)
            self = ($0 ~ /\(self\)/) ? "true" : "false"
            servers = servers (servers ? ", " : "") "{\"id\": \"" id "\", \"address\": \"" address "\", \"self\": " self "}"
        }
        END {
            printf "\"answers\": %s, \"state\": \"%s\", \"role\": \"%s\", \"leader\": \"%s\", \"term\": %d, \"timer\": %d, \"end\": %d, \"pending\": %d, \"servers\": [%s]}",
                (state != "" ? "true" : "false"), state, role, leader, term, timer, end, pending, servers
        }'
    comma=", "
done
printf '}}\n'
