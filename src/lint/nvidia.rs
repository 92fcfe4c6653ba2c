//! NVIDIA's drivers in a Talos image: with the modules that they need, on a node that has such a GPU; and an image that
//! is another one than the configuration names.

use crate::base::schematic::{self, FactoryImage};
use crate::base::survey::{Node, Stage, Talos};

use super::{Explain, Out, Rule, each, quoted, reboots, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L01",
        title: "NVIDIA's drivers are in the image and their kernel modules are not loaded, or only until the next boot",
        explain: Explain {
            wrong: "The image brings NVIDIA's drivers, but no kernel module is loaded unless the machine configuration asks \
                    for it. The extension's service waits for the driver, and Talos is booted only once every service is up: \
                    after 70 minutes the boot fails and the node reboots, without end.",
            shows: "`kubectl get nodes` says Ready; `talosctl get machinestatus` says `booting`, and `talosctl services` shows \
                    `ext-nvidia-persistenced` in `Waiting`.",
            by_hand: "`talosctl patch mc` with `machine.kernel.modules`: nvidia, nvidia_uvm, nvidia_drm, nvidia_modeset; it \
                      takes effect without a reboot.",
            source: "Talos, NVIDIA GPU guide; siderolabs/talos `startAllServices` and its boot timeout of 70 minutes",
        },
        silences: &["L24", "L25"],
        look: |survey, out| each(survey, out, without_modules),
    },
    Rule {
        number: "L02",
        title: "NVIDIA's drivers are in the image of a node that has no such GPU",
        explain: Explain {
            wrong: "The service of NVIDIA's extension waits for a driver that never binds to anything, and Talos stays in \
                    `booting` until it reboots after 70 minutes, without end.",
            shows: "`kubectl get nodes` says Ready; `talosctl services` shows `ext-nvidia-persistenced` in `Waiting`, and \
                    `talosctl get pcidevices` shows nothing of NVIDIA's.",
            by_hand: "`talosctl upgrade --image` with the same version and a schematic without NVIDIA's extensions: it reboots \
                      the node, one after the other where etcd runs on it.",
            source: "Image Factory, schematics; siderolabs/talos `startAllServices`",
        },
        silences: &["L03", "L24", "L25"],
        look: |survey, out| each(survey, out, without_gpu),
    },
    Rule {
        number: "L03",
        title: "the image that runs and the machine configuration do not agree",
        explain: Explain {
            wrong: "An upgrade takes its image from the command line and leaves `machine.install.image` as it is. A node that \
                    is installed anew from its configuration comes up with other extensions than it has now; and modules \
                    that no extension brings are asked for in vain.",
            shows: "`talosctl get extensions` names another schematic than `machine.install.image`; `talosctl dmesg` has `error \
                    loading module`.",
            by_hand: "`talosctl upgrade --image` with what the configuration names, which reboots the node, or `talosctl patch \
                      mc` with what runs, which does not.",
            source: "Image Factory, schematics; siderolabs/talos machine.install.image (of use for the first installation only)",
        },
        silences: &[],
        look: |survey, out| each(survey, out, disagree),
    },
];

/// Talos' guide for NVIDIA GPUs.
pub(super) const MODULES: [&str; 4] = ["nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"];

/// An extension that brings NVIDIA's kernel modules.
fn is_driver(extension: &str) -> bool {
    extension.starts_with("nonfree-kmod-nvidia") || extension.starts_with("nvidia-open-gpu-kernel-modules")
}

fn is_nvidia(extension: &str) -> bool {
    is_driver(extension) || extension.starts_with("nvidia-")
}

/// What follows: who waits, and what Talos and the kubelet make of it.
fn follows(node: &Node, talos: &Talos) -> String {
    let waits = talos.pending_services().find(|service| service.id.contains("nvidia"));
    let mut text = waits.map_or_else(String::new, |service| {
        let message = if service.message.is_empty() { String::new() } else { format!(" ({})", service.message) };
        format!("; `{}` is {}{message}", service.id, service.state)
    });
    if talos.stage.known() == Some(&Stage::Booting) {
        text.push_str("; Talos is `booting`");
        if node.kubelet().is_some_and(|kubelet| kubelet.ready) {
            text.push_str(" though the kubelet is Ready");
        }
        text.push_str(", and reboots after 70 minutes of it");
    }
    text
}

fn without_modules(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let extensions = out.part(&node.name, &talos.extensions, "extensions")?;
    let driver = extensions.iter().find(|extension| is_driver(&extension.name))?;
    let pci = out.part(&node.name, &talos.pci, "PCI devices")?;
    if !pci.iter().any(|device| device.is_nvidia_gpu()) {
        return None;
    }
    let configured = out.part(&node.name, &talos.modules_configured, "configured kernel modules")?;
    let loaded = out.part(&node.name, &talos.modules_loaded, "kernel modules")?;
    let same = |a: &str, b: &str| a.replace('-', "_") == b.replace('-', "_");
    let live = |name: &str| loaded.iter().any(|module| module.live && same(&module.name, name));
    let asked = |name: &str| configured.iter().any(|module| same(module, name));
    let missing: Vec<&str> = MODULES.into_iter().filter(|name| !live(name)).collect();
    let unasked: Vec<&str> = MODULES.into_iter().filter(|name| !asked(name)).collect();
    let what = format!("{} is in its image", driver.name);
    if unasked.is_empty() {
        if !missing.is_empty() {
            let text = format!(
                "{what} and its configuration asks for the kernel modules, but {} cannot be loaded{}",
                quoted(&missing),
                follows(node, talos)
            );
            out.find(&node.name, text, talosctl(node, "dmesg"));
        }
        return Some(());
    }
    let listed = quoted(&unasked);
    let text = if missing.is_empty() {
        format!(
            "{what} and its kernel modules are loaded now, but its configuration does not ask for {listed}: the next boot \
             waits for them"
        )
    } else {
        format!("{what} and its configuration does not ask for the kernel modules {listed}{}", follows(node, talos))
    };
    let listed: Vec<String> = unasked.iter().map(|name| format!(r#"{{"name":"{name}"}}"#)).collect();
    let patch = format!(
        r#"{{"machine":{{"kernel":{{"modules":[{}]}},"sysctls":{{"net.core.bpf_jit_harden":"1"}}}}}}"#,
        listed.join(",")
    );
    out.find(&node.name, text, talosctl(node, &format!("patch mc --mode=no-reboot --patch '{patch}'")));
    Some(())
}

/// The image of a version and schematic, from where the node's own is from.
pub(super) fn image(talos: &Talos, schematic: &str, tag: &str) -> String {
    let named = talos.config.known().and_then(|config| config.image.as_deref()).and_then(FactoryImage::of);
    let platform = if talos.version.platform.is_empty() { "metal" } else { &talos.version.platform };
    let place =
        named.map_or_else(|| format!("factory.talos.dev/{platform}-installer/"), |image| image.place.to_owned());
    format!("{place}{schematic}:{tag}")
}

/// What gives a node another image, and what comes with that.
fn upgrade(node: &Node, image: &str) -> String {
    format!("{}{}", talosctl(node, &format!("upgrade --image {image}")), reboots(node))
}

fn without_gpu(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let extensions = out.need(&node.name, &talos.extensions)?;
    let (nvidia, others): (Vec<&str>, Vec<&str>) =
        extensions.iter().map(|extension| extension.name.as_str()).partition(|name| is_nvidia(name));
    if nvidia.is_empty() || out.part(&node.name, &talos.pci, "PCI devices")?.iter().any(|device| device.is_nvidia_gpu())
    {
        return None;
    }
    let text =
        format!("its image is one for an NVIDIA GPU ({}), and it has none{}", quoted(&nvidia), follows(node, talos));
    let all: Vec<&str> = extensions.iter().map(|extension| extension.name.as_str()).collect();
    let right = talos.schematic.known().and_then(|id| schematic::without(id, &all, is_nvidia));
    let help = match right {
        Some(id) => upgrade(node, &image(talos, &id, &talos.version.tag)),
        // What else the schematic asks for is not told: it must not get lost.
        None => format!(
            "make a schematic at https://factory.talos.dev with what this one has, without {} (it keeps {}), and {}",
            quoted(&nvidia),
            quoted(&others),
            upgrade(node, &image(talos, "SCHEMATIC", &talos.version.tag))
        ),
    };
    out.find(&node.name, text, help);
    Some(())
}

fn disagree(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let runs = out.need(&node.name, &talos.schematic);
    let config = out.need(&node.name, &talos.config)?;
    let named = config.image.as_deref().and_then(FactoryImage::of);
    let other = runs.zip(named).filter(|(runs, named)| !runs.eq_ignore_ascii_case(named.schematic));
    let asked = config.modules.iter().any(|module| module.starts_with("nvidia"));
    let extensions = out.need(&node.name, &talos.extensions);
    let in_vain = asked && extensions.is_some_and(|all| !all.iter().any(|extension| is_driver(&extension.name)));
    let mut text = match &other {
        Some((runs, named)) => {
            format!(
                "it runs schematic {runs}, and machine.install.image of its configuration names {}",
                named.schematic
            )
        }
        None if in_vain => "its image has no driver of NVIDIA's".to_owned(),
        None => return None,
    };
    if in_vain {
        text.push_str(": the kernel modules of NVIDIA's that its configuration asks for cannot be loaded");
    }
    let help = match other {
        // What came up by itself is what is meant; the configuration is what was forgotten.
        Some((runs, _)) if talos.is_settled() && !in_vain => {
            let image = image(talos, runs, &talos.version.tag);
            let patch = if config.install.expression.is_some() {
                format!(
                    r#"{{"apiVersion":"v1alpha1","kind":"UnattendedInstallConfig","installer":{{"image":"{image}"}}}}"#
                )
            } else {
                format!(r#"{{"machine":{{"install":{{"image":"{image}"}}}}}}"#)
            };
            talosctl(node, &format!("patch mc --mode=no-reboot --patch '{patch}'"))
        }
        Some((_, named)) => upgrade(node, &format!("{}{}:{}", named.place, named.schematic, talos.version.tag)),
        None => format!("take them out of it: {}", talosctl(node, "edit mc --mode=no-reboot")),
    };
    out.find(&node.name, text, help);
    Some(())
}
