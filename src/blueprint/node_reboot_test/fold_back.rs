//! What the source of the machine configurations must say after a repair, by the journal alone.
//!
//! Names: talhelper's `talconfig.yaml` with `nodes`, `hostname`, `patches` and `schematic` (budimanjojo/talhelper
//! `docs/docs/reference/configuration.md`); the image factory's `customization` (siderolabs/image-factory `pkg/schematic`).

use serde::Deserialize;

use crate::base::schematic::FactoryImage;
use crate::engine::fold::Fold;
use crate::engine::state::{RunState, Stage};
use crate::engine::step::Step;
use crate::estate::Estate;

use super::RepairNode;
use super::s03_repair::Before;

/// What everybody must say by now; nothing where nothing was mended.
pub(super) fn fold_back(state: &RunState, _others: &[&RunState]) -> Vec<Fold> {
    let mut all = Vec::new();
    for planned in state.opened.plan.iter().filter(|planned| planned.key.id() == <RepairNode as Step<Estate>>::ID) {
        let Some(run) = state.steps.get(&planned.key) else { continue };
        if !(run.stage == Stage::Applied || run.passed) {
            continue;
        }
        let Ok(step) = RepairNode::deserialize(&planned.step) else { continue };
        let Some(Ok(before)) = run.before.as_ref().map(Before::deserialize) else { continue };
        let name = &step.machine.node.name;
        all.push(match before {
            Before::Config { .. } => config(name),
            Before::Image { boot, from, to } => image(name, &from.unwrap_or_else(|| boot.image()), &to),
        });
    }
    all
}

fn config(name: &str) -> Fold {
    let lines = [
        "nodes:".to_owned(),
        format!("  - hostname: {name}"),
        "    patches:".into(),
        "      - |-".into(),
        "        machine:".into(),
        "          kernel:".into(),
        "            modules:".into(),
        "              - name: nvidia".into(),
        "              - name: nvidia_uvm".into(),
        "              - name: nvidia_drm".into(),
        "              - name: nvidia_modeset".into(),
        "          sysctls:".into(),
        "            net.core.bpf_jit_harden: \"1\"".into(),
    ];
    Fold {
        owner: format!("the source of the machine configuration of {name} (here as talhelper's talconfig.yaml has it)"),
        why: vec![
            "The next configuration that is applied from there takes the modules out again.".into(),
            "Without talhelper the block below `machine:` is a patch for `talosctl gen config` and `machineconfig patch`."
                .into(),
        ],
        language: "yaml",
        lines: lines.into(),
    }
}

fn image(name: &str, from: &str, to: &str) -> Fold {
    let mut lines = vec![format!("# {name}"), "machine:".into(), "  install:".into(), format!("    image: {to}")];
    if let Some(image) = FactoryImage::of(to) {
        lines.push(format!("# schematic {}", image.schematic));
    }
    Fold {
        owner: format!(
            "the source of the machine configuration of {name} (talhelper: `talosImageURL`, or `schematic`)"
        ),
        why: vec![
            format!("It ran {from}. The next upgrade takes the image from there, and with it the extensions."),
            "An upgrade does not write `machine.install.image`: a new install would take what stands there.".into(),
        ],
        language: "yaml",
        lines,
    }
}
