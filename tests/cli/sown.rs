//! The world whose secrets are looked for.

use pvemig::lab::{self, World};
use serde_json::json;

use super::planted::Planted;

/// The world, with secrets in its machines and in what their programs say.
pub(crate) fn world(planted: &mut Planted) -> World {
    let config = |planted: &mut Planted, vm: &str| {
        json!({
            "description": format!("root password: {}", planted.plain(&format!("{vm}: description"))),
            "cipassword": planted.plain(&format!("{vm}: cloud-init password")),
            "sshkeys": planted.plain(&format!("{vm}: cloud-init keys")),
            "args": format!("-vnc :1,password={}", planted.plain(&format!("{vm}: arguments"))),
        })
    };
    let says = |exit: i32, out: String, err: String| json!({"exit": exit, "stdout": out, "stderr": err});
    let answers = json!({
        "/opt/check": says(1, format!("{}\n", planted.token("guest command: output of a check")),
            format!("api_key={}\n", planted.plain("guest command: errors of a check"))),
        "/opt/unclear": says(126, String::new(), format!("token {}\n", planted.token("guest command: a check that did not run"))),
        "/opt/install": says(9, String::new(), format!("fetch https://me:{}@repo.lan/x failed\n",
            planted.plain("guest command: errors of an install"))),
        "/opt/good": says(0, format!("password={}\n", planted.plain("guest command: output of one that is well")), String::new()),
    });
    let world = json!({
        "extends": "usb-move",
        "access": {
            "users": {"root@pam": {"password": planted.awkward("site: password")}},
            "tokens": {"root@pam!pvemig": {"secret": planted.plain("site: token secret")}},
        },
        "vms": {
            "105": {"config": config(planted, "vm 105")},
            "108": {"config": config(planted, "vm 108"), "guest": {"answers": answers}},
        },
        "reading_commands": [["printenv"], ["env"], ["/opt/check"], ["/opt/good"], ["/opt/unclear"]],
        "site": {"migrations": {"frigate-coral": {"params": {
            "verify": {"command": ["printenv", "FRIGATE_MQTT_PASSWORD"], "expect": null, "container": "frigate", "reads": true},
        }}}},
    });
    lab::read(&serde_saphyr::to_string(&world).unwrap()).unwrap()
}
