//! `ApplyConfiguration` as each version does it.

use std::time::Duration;

use tonic::Status;

use super::config::{Config, difference};
use super::life::Due;
use super::node::Going;
use super::server::Server;
use crate::lab::agenda::Event;
use crate::talos::proto::machine::apply_configuration_request::Mode;
use crate::talos::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest};

/// How long a configuration is on trial where the request does not say.
const TRY: Duration = Duration::from_secs(60);

impl Server {
    pub(super) fn apply(&self, request: &ApplyConfigurationRequest) -> Result<ApplyConfiguration, Status> {
        let (minor, active) = self.look(|_, node, run| (node.image().minor().1, run.active.clone()))?;
        let config = Config::read(&request.data, minor).map_err(Status::invalid_argument)?;
        config.validate().map_err(Status::invalid_argument)?;
        let text = String::from_utf8(request.data.clone()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if self.look(|_, _, run| run.maintenance)? {
            return self.first_config(request, &config, text, minor);
        }
        let waits = Config::read(active.as_bytes(), minor).map(|old| config.waits_for_reboot(&old)).unwrap_or_default();
        let refusal = format!("this config change can't be applied in immediate mode\ndiff: {}", waits.join(", "));
        let wanted = Mode::try_from(request.mode).map_err(|_| Status::unknown("incorrect mode specified"))?;
        let without = "Applied configuration without a reboot";
        let (mode, mut details) = match wanted {
            Mode::Reboot if minor >= 14 => return Err(Status::unimplemented("reboot mode is not supported anymore")),
            Mode::Reboot => (Mode::Reboot, "Applied configuration with a reboot".to_owned()),
            Mode::Staged => (Mode::Staged, "Staged configuration to be applied after the next reboot".to_owned()),
            Mode::Auto | Mode::NoReboot if minor >= 14 || waits.is_empty() => (Mode::NoReboot, without.to_owned()),
            Mode::Auto => (Mode::Reboot, format!("Applied configuration with a reboot: {refusal}")),
            Mode::Try if waits.is_empty() => (Mode::Try, without.to_owned()),
            Mode::NoReboot | Mode::Try => return Err(Status::invalid_argument(refusal)),
        };
        let said = |details: String| ApplyConfiguration {
            metadata: None,
            warnings: Vec::new(),
            mode: mode.into(),
            mode_details: details,
        };
        if request.dry_run {
            let head = details.split(": ").next().unwrap_or_default().to_owned();
            let difference = difference(&active, &text);
            return Ok(said(format!("Dry run summary:\n{head} (skipped in dry-run).\nConfig diff:\n\n{difference}")));
        }
        let timeout = request.try_mode_timeout.and_then(|t| Duration::try_from(t).ok()).unwrap_or(TRY);
        if mode == Mode::Try {
            details += &format!(
                "\nThe config is applied in 'try' mode and will be automatically reverted back in {}",
                jiff::SignedDuration::try_from(timeout).map(|d| format!("{d:#}")).unwrap_or_default()
            );
        }
        self.shared.change(|w| {
            let persists = mode != Mode::Try;
            let Some(node) = w.talos.nodes.get_mut(&self.node) else { return };
            if persists {
                node.config.clone_from(&text);
            }
            if let Some(run) = node.run.as_mut() {
                run.trying = None;
            }
            if matches!(mode, Mode::NoReboot | Mode::Try) {
                w.talos_activate(&self.node, &text);
            }
            match mode {
                Mode::Try => self.try_until(w, timeout),
                Mode::Reboot => {
                    w.talos_sequence(&self.node, "reboot", Going::Rebooting { kexec: true }, true, false);
                }
                _ => {}
            }
        });
        Ok(said(details))
    }

    /// The configuration in effect goes by itself, unless another one is applied before.
    fn try_until(&self, w: &mut crate::lab::World, timeout: Duration) {
        let Some(run) = w.talos.nodes.get_mut(&self.node).and_then(|node| node.run.as_mut()) else { return };
        let generation = run.generation;
        run.trying = Some(generation);
        let (node, boot_id) = (self.node.clone(), run.boot_id.clone());
        let at = w.now + timeout;
        w.agenda.at(at, Event::Talos { node, boot_id, due: Due::TryOver(generation) });
    }
}
