#!/usr/bin/env bash
# The twelve steps of a finished move, looked at as a careful person's script does: `curl`, `jq`, `kubectl`, `ssh`, one
# after the other; ssh keeps its connection, the others connect for each call, as they do in scripts. It changes nothing,
# and ends at the first thing that is not so. `env` of a lab's folder is its input.
set -Eeuo pipefail
trap 'echo "not so: line $LINENO: $BASH_COMMAND" >&2' ERR
set -a
. "${1:?folder of a lab}/env"
set +a

master=$(mktemp -d)
trap 'ssh -q -o ControlPath="$master/%C" -p "$GUEST_PORT" -O exit root@127.0.0.1 2>/dev/null || true; rm -rf "$master"' EXIT

ticket=$(curl -sf --cacert "$PVE_CA" "$PVE_URL/api2/json/access/ticket" -d "username=$PVE_USER" --data-urlencode "password=$(<"$PVE_PASSWORD_FILE")" | jq -er .data.ticket)
pve() { curl -sf --cacert "$PVE_CA" -b "PVEAuthCookie=$ticket" "$PVE_URL/api2/json$1" | jq -er "$2" >/dev/null || { echo "not so: $1 $2" >&2; exit 1; }; }
kube() { kubectl get "${@:1:$#-1}" -o json | jq -er "${!#}" >/dev/null || { echo "not so: ${*}" >&2; exit 1; }; }
guest() {
    ssh -q -o BatchMode=yes -o UserKnownHostsFile="$SSH_KNOWN_HOSTS" -o ControlMaster=auto -o ControlPath="$master/%C" \
        -o ControlPersist=10 -i "$SSH_KEY" -p "$GUEST_PORT" root@127.0.0.1 "$@"
}

# 00: the cluster has a quorum, both machines run, the nodes are Ready
pve /cluster/status 'any(.data[]; .type == "cluster" and .quorate == 1)'
pve '/cluster/resources?type=vm' '[.data[] | select((.vmid == 105 or .vmid == 108) and .status == "running")] | length == 2'
kube nodes 'all(.items[]; any(.status.conditions[]; .type == "Ready" and .status == "True"))'
# 01: the source has no usb key
pve /nodes/pumped-piglet/qemu/105/config '.data | keys | all(startswith("usb") | not)'
# 02: the source node has no label
kube node k3s-vm-pumped-piglet '.metadata.labels | has("coral") | not'
# 03: the stick is in the target's host
pve /nodes/still-fawn/hardware/usb 'any(.data[]; "\(.vendid):\(.prodid)" | test("1a6e:089a|18d1:9302"))'
# 04: the target has both of its ids, at full speed
pve /nodes/still-fawn/qemu/108/config '[.data | to_entries[] | select(.key | test("^usb[0-9]")) | .value | select(test("usb3=1"))] | any(test("1a6e:089a")) and any(test("18d1:9302"))'
# 05: nothing of it is pending
pve /nodes/still-fawn/qemu/108/pending 'all(.data[]; (.key | test("^usb[0-9]") | not) or ((has("pending") or has("delete")) | not))'
# 06: the guest answers, and its node is Ready in this very boot
boot=$(guest cat /proc/sys/kernel/random/boot_id)
kube node k3s-vm-still-fawn "any(.status.conditions[]; .type == \"Ready\" and .status == \"True\") and .status.nodeInfo.bootID == \"$boot\""
# 07: it sees the stick, at full speed, and what else the workload needs
usb=$(guest "find -L /sys/bus/usb/devices -maxdepth 2 '(' -name idVendor -o -name speed ')' -exec grep -H . '{}' +")
port=$(sed -nE 's,^(.*)/idVendor:(1a6e|18d1)$,\1,p' <<<"$usb" | head -1)
[[ -n $port ]] && grep -qx "$port/speed:5000" <<<"$usb"
guest test -e /dev/dri
# 08: the driver is there
guest /usr/bin/dpkg -s libedgetpu1-std >/dev/null
# 09: the target node has the label
kube node k3s-vm-still-fawn '.metadata.labels.coral == "true"'
# 11: the claims are bound, and to volumes on the target node
kube pvc -n frigate '.items | length == 2 and all(.status.phase == "Bound")'
kube pv '[.items[] | select(.spec.claimRef.namespace == "frigate" and .status.phase == "Bound")] | length == 2 and all(.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values == ["k3s-vm-still-fawn"])'
# 10: the workload is up as it is declared, nothing of Flux is suspended, and the program sees the stick
kube deployment frigate -n frigate '.status.readyReplicas == .spec.replicas and .spec.template.spec.nodeSelector.coral == "true"'
kube configmap frigate-config -n frigate '.data["config.yml"] | contains("preset-vaapi")'
kube kustomizations.kustomize.toolkit.fluxcd.io -A '(.items | length > 0) and all(.items[]; .spec.suspend != true)'
kubectl exec -n frigate deployment/frigate -c frigate -- python3 -c 'from pycoral.utils.edgetpu import list_edge_tpus; print(list_edge_tpus())' | grep -q usb
