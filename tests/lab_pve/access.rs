//! Who may do what.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_tickets_with_a_csrf_token_or_api_tokens() {
    let b = Bench::new("usb-move").await;
    let Auth::Ticket { cookie, csrf } = b.auth.clone() else { panic!() };
    assert!(cookie.starts_with("PVE:root@pam:"), "{cookie}");
    let config = format!("{VM108}/config");

    let no_ticket = b.ask(&Auth::Nobody, "GET", "/version", &[]).await;
    no_ticket.refused(401, "No ticket");
    assert_eq!(no_ticket.body, Value::Null);
    let bad = Auth::Ticket { cookie: cookie.replace("root", "boot"), csrf: csrf.clone() };
    b.ask(&bad, "GET", "/version", &[]).await.refused(401, "Authentication failed!");
    let no_csrf = Auth::Ticket { cookie: cookie.clone(), csrf: String::new() };
    b.ask(&no_csrf, "PUT", &config, &[("onboot", "0")]).await.refused(401, "Permission denied - invalid csrf token");
    assert_eq!(b.ask(&no_csrf, "GET", "/version", &[]).await.status, 200);

    let token = b.token("root@pam!pvemig");
    assert_eq!(b.ask(&token, "PUT", &config, &[("onboot", "0")]).await.status, 200);
    let wrong = Auth::Token("root@pam!pvemig=00000000-0000-0000-0000-000000000000".into());
    b.ask(&wrong, "GET", "/version", &[]).await.refused(401, "Authentication failed!");
    let none = Auth::Token("root@pam!none=00000000-0000-0000-0000-000000000000".into());
    b.ask(&none, "GET", "/version", &[]).await.refused(401, "Authentication failed!");

    let login = [("username", "root@pam"), ("password", "wrong")];
    let said = b.ask(&Auth::Nobody, "POST", "/access/ticket", &login).await;
    said.refused(401, "authentication failure");
    assert_eq!(said.body["data"], Value::Null);
    let said = b.ask(&token, "POST", "/access/ticket", &login).await;
    said.refused(
        403,
        "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.",
    );

    // A valid ticket is a password: that is how one is renewed.
    let again =
        b.ask(&Auth::Nobody, "POST", "/access/ticket", &[("username", "root@pam"), ("password", &cookie)]).await;
    assert_eq!(again.data()["username"], "root@pam");
    // A cookie wins over a token.
    let both = b.request(&bad, "GET", "/version");
    let Auth::Token(good) = &token else { panic!() };
    b.send(both.header("Authorization", format!("PVEAPIToken={good}"))).await.refused(401, "Authentication failed!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_looked_up_along_the_path() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    let rights = b.ask(&token, "GET", "/access/permissions", &[]).await.data().clone();
    assert_eq!(rights["/"], json!({ "Sys.Audit": 1, "Sys.Modify": 1 }));
    assert_eq!(rights["/vms/108"]["VM.PowerMgmt"], 1);
    assert_eq!(rights["/vms"], json!({ "VM.Audit": 1 }));
    let one = b.ask(&token, "GET", "/access/permissions", &[("path", "/mapping/usb/coral")]).await.data().clone();
    assert_eq!(one["/mapping/usb/coral"].as_object().unwrap().len(), 3);
    let root = b.ask(&b.auth, "GET", "/access/permissions", &[("path", "/vms/108")]).await.data().clone();
    assert_eq!(root["/vms/108"].as_object().unwrap().len(), pvemig::lab::pve::access::PRIVILEGES.len());

    let said = b.ask(&token, "POST", "/nodes/pve/qemu/103/status/start", &[]).await;
    said.refused(403, "Permission check failed (/vms/103, VM.PowerMgmt)");
    // A right that is missing hides a machine that is not there.
    let said = b.ask(&token, "POST", "/nodes/pve/qemu/999/status/start", &[]).await;
    said.refused(403, "Permission check failed (/vms/999, VM.PowerMgmt)");
    let said = b.ask(&token, "PUT", "/nodes/pve/qemu/103/config", &[("onboot", "0")]).await;
    assert!(said.reason.starts_with("Permission check failed (/vms/103, VM.Config.Disk|VM.Config.CDROM|"), "{said:?}");
    let said = b.ask(&token, "PUT", &format!("{VM108}/config"), &[("onboot", "0")]).await;
    said.refused(403, "Permission check failed (/vms/108, VM.Config.Options)");
    let said = b.ask(&token, "PUT", &format!("{VM108}/config"), &[("args", "-x")]).await;
    said.refused(500, "only root can set 'args' config");
    let seen = b.ask(&token, "GET", "/cluster/resources", &[("type", "vm")]).await.data().clone();
    assert_eq!(seen.as_array().unwrap().len(), 3);

    let b = Bench::new("usb-move-token-cannot").await;
    let token = b.token("pvemig@pve!pvemig");
    let said = b.ask(&token, "GET", "/nodes/still-fawn/hardware/usb", &[]).await;
    said.refused(403, "Permission check failed (/, Sys.Modify)");
    let said =
        b.ask(&token, "POST", "/cluster/mapping/usb", &[("id", "coral"), ("map", "node=pve,id=1a6e:089a")]).await;
    said.refused(403, "Permission check failed (/mapping/usb, Mapping.Modify)");
    let said = b.ask(&token, "POST", &format!("{VM108}/agent/exec"), &[("command", "lsusb")]).await;
    said.refused(403, "Permission check failed (/vms/108, VM.GuestAgent.Unrestricted)");
    assert_eq!(b.ask(&token, "POST", &format!("{VM108}/agent/ping"), &[]).await.data(), &json!({ "result": {} }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_usb_is_for_root_alone_and_a_mapping_for_those_who_may_use_it() {
    let b = Bench::new("usb-move").await;
    let token = b.token("root@pam!pvemig");
    let text = |key: &str| format!("only root can set '{key}' config for real devices");
    let config105 = format!("{VM105}/config");
    let config108 = format!("{VM108}/config");
    // No token is root, not even one of root with all its rights; deleting needs the same as setting.
    for (config, key, params) in [
        (&config108, "usb0", [("usb0", "host=1a6e:089a,usb3=1")]),
        (&config108, "usb3", [("usb3", "host=2-3")]),
        (&config105, "usb0", [("delete", "usb0")]),
        (&config105, "usb1", [("usb1", "mapping=coral")]),
    ] {
        b.ask(&token, "PUT", config, &params).await.refused(500, &text(key));
        let upid = b.ask(&token, "POST", config, &params).await.data().as_str().unwrap().to_owned();
        assert_eq!(b.finish(&upid).await, text(key));
    }
    assert_eq!(b.ask(&token, "PUT", &config108, &[("usb0", "spice")]).await.status, 200);
    assert_eq!(b.get(&config105).await["usb0"], "host=1a6e:089a,usb3=1");

    let b = Bench::with("usb-move-token", |w| {
        w.access.acl.retain(|e| e.path != "/mapping/usb");
    })
    .await;
    let token = b.token("pvemig@pve!pvemig");
    let said = b.ask(&token, "PUT", &config108, &[("usb0", "mapping=coral,usb3=1")]).await;
    said.refused(403, "Permission check failed (/mapping/usb/coral, Mapping.Use)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_version_9_one_privilege_opens_the_guest_agent() {
    let b = Bench::with("usb-move-token", |w| {
        w.hosts.values_mut().for_each(|host| host.version = "8.4.14".into());
        w.access.roles.get_mut("MigrateLook").unwrap().insert("VM.Monitor".into());
    })
    .await;
    assert_eq!(b.get("/version").await["release"], "8.4");
    let token = b.token("pvemig@pve!pvemig");
    // What the version does not know is passed over, and a role on a deeper path takes the place of this one.
    let own = b.ask(&token, "GET", "/access/permissions", &[("path", "/vms/108")]).await.data().clone();
    assert_eq!(own["/vms/108"], json!({ "VM.Audit": 1, "VM.Config.HWType": 1, "VM.PowerMgmt": 1 }));
    for command in ["ping", "exec"] {
        let said = b.ask(&token, "POST", &format!("{VM108}/agent/{command}"), &[("command", "lsusb")]).await;
        said.refused(403, "Permission check failed (/vms/108, VM.Monitor)");
    }
    let all = b.ask(&b.auth, "GET", "/access/permissions", &[("path", "/")]).await.data()["/"].clone();
    let has = |privilege: &str| all.get(privilege).is_some();
    assert_eq!((has("VM.Monitor"), has("VM.GuestAgent.Unrestricted"), has("VM.Audit")), (true, false, true));
}
