#!/usr/bin/env bash
# The twelve steps of a finished move, looked at as a careful person's script does: `curl`, `jq`, `kubectl`, `ssh`, one
# after the other. It changes nothing, and ends at the first thing that is not so. `env` of a lab's folder is its input.
set -Eeuo pipefail
trap 'echo "not so: line $LINENO: $BASH_COMMAND" >&2' ERR
set -a
. "${1:?folder of a lab}/env"
set +a

ticket=$(curl -sf --cacert "$PVE_CA" "$PVE_URL/api2/json/access/ticket" -d "username=$PVE_USER" --data-urlencode "password=$(<"$PVE_PASSWORD_FILE")" | jq -er .data.ticket)
pve() { curl -sf --cacert "$PVE_CA" -b "PVEAuthCookie=$ticket" "$PVE_URL/api2/json$1" | jq -er "$2" >/dev/null || { echo "not so: $1 $2" >&2; exit 1; }; }
kube() { kubectl get "${@:1:$#-1}" -o json | jq -er "${!#}" >/dev/null || { echo "not so: ${*}" >&2; exit 1; }; }
guest() { ssh -q -o BatchMode=yes -o UserKnownHostsFile="$SSH_KNOWN_HOSTS" -i "$SSH_KEY" -p "$GUEST_PORT" root@127.0.0.1 "$@"; }

# 00: the cluster has a quorum, both machines are there, the nodes are Ready
pve /cluster/status 'any(.data[]; .type == "cluster" and .quorate == 1)'
pve /nodes/still-fawn/qemu/108/status/current '.data.status == "running"'
kube nodes 'all(.items[]; any(.status.conditions[]; .type == "Ready" and .status == "True"))'
# 01: the source has no usb key
pve /nodes/pumped-piglet/qemu/105/config '.data | keys | all(startswith("usb") | not)'
# 02: the source node has no label
kube node k3s-vm-pumped-piglet '.metadata.labels | has("coral") | not'
# 03: the stick is in the target's host
pve /nodes/still-fawn/hardware/usb 'any(.data[]; "\(.vendid):\(.prodid)" | test("1a6e:089a|18d1:9302"))'
# 04: the target has it
pve /nodes/still-fawn/qemu/108/config '.data | [to_entries[] | select(.key | startswith("usb")) | .value] | any(test("usb3=1"))'
# 05: nothing of it is pending
pve /nodes/still-fawn/qemu/108/pending '.data | all(.key // "" | startswith("usb") | not) or all(.[]; has("pending") | not)'
# 06: the guest answers
guest true
# 07: it sees the stick
guest 'find /sys/bus/usb/devices -maxdepth 2 -name idVendor -exec grep -H . {} +' | grep -qE '1a6e|18d1'
# 08: no drivers are declared
# 09: the target node has the label
kube node k3s-vm-still-fawn '.metadata.labels | has("coral")'
# 11: the claims are bound
kube pvc -n frigate 'all(.items[]; .status.phase == "Bound")'
# 10: the workload is up, and nothing of Flux is suspended
kube deployment frigate -n frigate '.status.readyReplicas == .spec.replicas'
kube kustomizations.kustomize.toolkit.fluxcd.io -A 'all(.items[]; .spec.suspend != true)'
