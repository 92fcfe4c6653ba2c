"""Drives the lab's Proxmox front with proxmoxer. Arguments: one JSON object with url, ca, password, token, secret.
Prints one JSON object: how many checks were made, and those that failed."""

import json
import sys

from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks

lab = json.loads(sys.argv[1])
count = 0
failed = []


def same(what, seen, expected):
    global count
    count += 1
    if seen != expected:
        failed.append(f"{what}: {seen!r} instead of {expected!r}")


def refused(what, call, status, text, errors=None):
    """The call raises ResourceException; `text` is in the server's words."""
    try:
        answer = call()
    except ResourceException as no:
        same(f"{what}: status", no.status_code, status)
        same(f"{what}: text", text in no.content, True)
        if text not in no.content:
            failed.append(f"  it was {no.content!r}")
        same(f"{what}: errors", sorted(no.errors or {}), errors or [])
    else:
        failed.append(f"{what}: {answer!r} instead of a refusal")


def proxmox(**how):
    return ProxmoxAPI(lab["address"], verify_ssl=lab["ca"], timeout=60, **how)


def wait(px, upid):
    same(f"{upid}: decoded", Tasks.decode_upid(upid)["node"], "still-fawn")
    return Tasks.blocking_status(px, upid, timeout=120, polling_interval=0.05)


root = proxmox(user="root@pam", password=lab["password"])
user, name = lab["token"].split("!")
token = proxmox(user=user, token_name=name, token_value=lab["secret"])

# Logins
ticket, csrf = root.get_tokens()
same("ticket", (ticket.startswith("PVE:root@pam:"), ":" in csrf), (True, True))
same("token has no ticket", token.get_tokens(), (None, None))
try:
    proxmox(user="root@pam", password="wrong")
    failed.append("a wrong password was taken")
except AuthenticationError as no:
    same("wrong password", "code: 401" in str(no), True)
renewed = proxmox(user="root@pam", password=ticket)
same("a ticket is good for another one", renewed.version.get()["release"], root.version.get()["release"])
stranger = proxmox(user=user, token_name=name, token_value="wrong")
refused("wrong token", stranger.version.get, 401, "Authentication failed!", ["errors"])

for px, who in [(root, "ticket"), (token, "token")]:
    # Nodes and lists
    same(f"{who}: nodes", sorted(n["node"] for n in px.nodes.get()), ["pumped-piglet", "pve", "still-fawn"])
    vms = px.cluster.resources.get(type="vm")
    same(f"{who}: resources", sorted(vm["vmid"] for vm in vms), [103, 105, 108])
    same(f"{who}: qemu", [vm["vmid"] for vm in px.nodes("still-fawn").qemu.get()], [108])
    same(f"{who}: status", px.nodes("still-fawn").qemu(108).status.current.get()["status"], "running")
    same(f"{who}: next id", px.cluster.nextid.get(), "100")
    same(f"{who}: rights", "/" in px.access.permissions.get(), True)

    # The config, with its digest
    config = px.nodes("still-fawn").qemu(108).config
    before = config.get()
    same(f"{who}: config", (before["name"], before["cores"], before["onboot"]), ("k3s-vm-still-fawn", 6, 1))
    same(f"{who}: put", config.put(description=f"by {who}", digest=before["digest"]), None)
    after = config.get()
    same(f"{who}: put is there", (after["description"], after["digest"] != before["digest"]), (f"by {who}", True))
    refused(f"{who}: old digest", lambda: config.put(description="no", digest=before["digest"]), 500, "checksum mismatch")
    upid = config.post(description=f"posted by {who}", digest=after["digest"])
    same(f"{who}: post", wait(px, upid)["exitstatus"], "OK")
    same(f"{who}: post is there", config.get()["description"], f"posted by {who}")
    upid = config.post(description="no", digest=after["digest"])
    same(f"{who}: post with an old digest", "checksum mismatch" in wait(px, upid)["exitstatus"], True)
    same(f"{who}: delete", config.put(delete="description"), None)
    same(f"{who}: deleted", "description" in config.get(), False)
    rows = {row["key"]: row.get("value") for row in px.nodes("still-fawn").qemu(108).pending.get()}
    same(f"{who}: pending", rows["name"], "k3s-vm-still-fawn")
    refused(f"{who}: unknown key", lambda: config.put(nonsense=1), 400, "Parameter verification failed.", ["nonsense"])
    refused(f"{who}: bad value", lambda: config.put(cores="many"), 400, "Parameter verification failed.", ["cores"])

    # Cluster-wide USB mappings
    mapping = px.cluster.mapping.usb
    entry = "node=still-fawn,id=8087:0a2b,path=1-8"
    same(f"{who}: no mapping", mapping.get(), [])
    same(f"{who}: create", mapping.post(id="bt", map=[entry], description="Bluetooth"), None)
    row = mapping("bt").get()
    same(f"{who}: mapping", (row["map"], row["description"], row["type"]), ([entry], "Bluetooth", "usb"))
    two = [entry, "node=pve,id=8087:0a2b,path=1-9"]
    same(f"{who}: replace", mapping("bt").put(map=two, digest=row["digest"]), None)
    same(f"{who}: replaced", [r["map"] for r in mapping.get(**{"check-node": "pve"})], [two])
    refused(f"{who}: old digest of a mapping", lambda: mapping("bt").put(map=two, digest=row["digest"]), 500, "detected modified configuration")
    refused(f"{who}: twice", lambda: mapping.post(id="bt", map=[entry]), 500, "usb ID 'bt' already defined")
    refused(f"{who}: no map", lambda: mapping("bt").put(description="x"), 400, "Parameter verification failed.", ["map"])
    same(f"{who}: remove", mapping("bt").delete(), None)
    refused(f"{who}: removed", mapping("bt").get, 500, "mapping 'bt' not found")

    # The guest agent: proxmoxer splits a command that is text
    agent = px.nodes("still-fawn").qemu(108).agent
    same(f"{who}: ping", agent.ping.post(), {"result": {}})
    same(f"{who}: host name", agent("get-host-name").get()["result"]["host-name"], "k3s-vm-still-fawn")
    interfaces = agent("network-get-interfaces").get()["result"]
    same(f"{who}: interfaces", interfaces[1]["ip-addresses"][0]["ip-address"], "192.168.4.212")
    for command in ["cat /etc/hostname", ["cat", "/etc/hostname"]]:
        pid = agent.exec.post(command=command)["pid"]
        end = agent("exec-status").get(pid=pid)
        same(f"{who}: {command}", (end["exited"], end["exitcode"], end["out-data"]), (1, 0, "k3s-vm-still-fawn\n"))
        refused(f"{who}: read twice", lambda: agent("exec-status").get(pid=pid), 500, "Invalid parameter 'pid'")
    same(f"{who}: file", agent("file-read").get(file="/etc/hostname")["content"], "k3s-vm-still-fawn\n")
    refused(f"{who}: no such program", lambda: agent.exec.post(command="nonsense"), 500, "Failed to execute child process")

    # Pve tasks by UPID
    upid = px.nodes("still-fawn").qemu(108).status.reboot.post(timeout=60)
    end = wait(px, upid)
    same(f"{who}: reboot", (end["exitstatus"], end["type"], end["id"]), ("OK", "qmreboot", "108"))
    log = Tasks.decode_log(px.nodes("still-fawn").tasks(upid).log.get())
    same(f"{who}: log", log.endswith("TASK OK"), True)
    kinds = [t["type"] for t in px.nodes("still-fawn").tasks.get(vmid=108, limit=50)]
    same(f"{who}: listed", "qmreboot" in kinds and "qmconfig" in kinds, True)
    # The start that follows is another pve task, which a daemon makes.
    again = None
    while again is None:
        rows = px.nodes("still-fawn").tasks.get(typefilter="qmstart", source="all")
        again = next((t["upid"] for t in rows if t["starttime"] >= end["starttime"]), None)
    same(f"{who}: started again", wait(px, again)["exitstatus"], "OK")
    while True:
        try:
            agent.ping.post()
            break
        except ResourceException as no:
            if "QEMU guest agent is not running" not in no.content:
                raise

    # What is not there
    refused(f"{who}: no such machine", px.nodes("pve").qemu(108).config.get, 500, "Configuration file 'nodes/pve/qemu-server/108.conf' does not exist")
    refused(f"{who}: no such call", px.nodes("pve").nonsense.get, 501, "not implemented", ["errors"])
    refused(f"{who}: no such node", px.nodes("nowhere").status.get, 500, "hostname lookup 'nowhere' failed")
    refused(f"{who}: cut off", px.nodes("pumped-piglet").status.get, 595, "No route to host", ["errors"])

# Root alone may pass a real device; a token of root is not root.
usb = "host=8087:0a2b"
upid = token.nodes("still-fawn").qemu(108).config.post(usb3=usb)
same("token and real device", "only root can set 'usb3' config for real devices" in wait(token, upid)["exitstatus"], True)
refused("token and real device at once", lambda: token.nodes("still-fawn").qemu(108).config.put(usb3=usb), 500, "only root can set 'usb3'")
same("root and real device", root.nodes("still-fawn").qemu(108).config.put(usb3=usb), None)
same("root's device", root.nodes("still-fawn").qemu(108).config.get()["usb3"], usb)
same("and off", root.nodes("still-fawn").qemu(108).config.put(delete="usb3"), None)

print(json.dumps({"checks": count, "failed": failed}))
