//! 08: the target's guest has the drivers that the site declares.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::base::redact;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::guest::{Command, Exit, Look, Output, Seen as Answer, quote};

use super::device::Vm;
use super::fault::StepFault;
use super::params::{Declared, Drivers};

/// Installs the drivers by the declared command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallDrivers {
    /// The VM.
    pub vm: Vm,
    /// The commands; None where the site declares none.
    pub drivers: Option<Drivers>,
}

/// What the declared check said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Its end, as `exit 1: package is not installed`.
    pub said: String,
}

/// The end of the declared check.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// They are there.
    There,
    /// They are not, with its words.
    Missing(String),
    /// It could not say, with its words.
    Unclear(String),
}

impl Step<Estate> for InstallDrivers {
    const ID: &'static str = "08-install-drivers";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        match &self.drivers {
            Some(drivers) => format!("the guest of vm {} passes `{}`", self.vm.vmid, quote(&drivers.check.command)),
            None => format!("the guest of vm {} needs no drivers", self.vm.vmid),
        }
    }

    fn why(&self) -> Vec<String> {
        let mut why = vec![
            "The device is there, and without its library or module no program can use it.".to_owned(),
            "The commands are the site's (`drivers:`): the check must change nothing, the install may be declared \
             `repeatable`."
                .into(),
        ];
        if let Some(drivers) = &self.drivers {
            why.push(format!("By hand, in the guest: `{}`.", quote(&drivers.install.command)));
        }
        why
    }

    /// An install that must not be sent twice is watched for as long as it may run, should its answer be lost.
    fn limit(&self) -> Duration {
        let once = self.drivers.as_ref().filter(|d| !d.install.repeatable);
        once.map_or(Duration::from_secs(60), |d| d.install.limit())
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let Some(drivers) = &self.drivers else { return Outlook::default() };
        let stays = format!("the drivers in the guest of vm {} (the site declares no `remove`)", self.vm.vmid);
        Outlook {
            longest: drivers.install.limit(),
            stays: drivers.remove.is_none().then_some(stays),
            ..Outlook::changes(System::Ssh, [format!("the guest of vm {}", self.vm.vmid)])
        }
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(drivers) = &self.drivers else {
            return Ok(Check::not_needed("the site declares no drivers"));
        };
        let answer = self.ask(cx, drivers).await?;
        Ok(match verdict(&answer.value) {
            Verdict::There => Check::done(),
            Verdict::Missing(said) => {
                let what = format!("vm {}: `{}`", self.vm.vmid, quote(&drivers.install.command));
                // What a command prints may hold anything.
                Check::todo(vec![Change::act(what)], Before { said: redact::text(&said) })
            }
            Verdict::Unclear(said) => Check::blocked(vec![self.unclear(drivers, &said)]),
        }
        .notes(answer.notes))
    }

    async fn apply(&self, cx: &Estate, _seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(drivers) = &self.drivers else { return Ok(()) };
        if !matches!(verdict(&self.ask(cx, drivers).await?.value), Verdict::Missing(_)) {
            return Ok(());
        }
        self.run(cx, &drivers.install, permit).await
    }

    async fn back(&self, cx: &Estate, _before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some(drivers) = &self.drivers else { return Ok(Check::done()) };
        let Some(remove) = &drivers.remove else {
            return Ok(Check::done().stays(["drivers stay: the site declares no command that removes them".to_owned()]));
        };
        let answer = self.ask(cx, drivers).await?;
        Ok(match verdict(&answer.value) {
            Verdict::Missing(_) => Check::done(),
            Verdict::There => {
                Check::todo(vec![Change::act(format!("vm {}: `{}`", self.vm.vmid, quote(&remove.command)))], ())
            }
            Verdict::Unclear(said) => Check::blocked(vec![self.unclear(drivers, &said)]),
        }
        .notes(answer.notes))
    }

    async fn undo(&self, cx: &Estate, _: &Before, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(drivers) = &self.drivers else { return Ok(()) };
        let Some(remove) = &drivers.remove else { return Ok(()) };
        if verdict(&self.ask(cx, drivers).await?.value) != Verdict::There {
            return Ok(());
        }
        self.run(cx, remove, permit).await
    }
}

impl InstallDrivers {
    async fn ask(&self, cx: &Estate, drivers: &Drivers) -> Result<Answer<Output>, Failure> {
        let look = Look::Declared { argv: drivers.check.command.clone() };
        Ok(cx.guest(&self.vm.node).await?.look(&look).await?)
    }

    async fn run(&self, cx: &Estate, declared: &Declared, permit: &Permit) -> Result<(), Failure> {
        let guest = cx.guest(&self.vm.node).await?;
        let command =
            Command { argv: declared.command.clone(), repeatable: declared.repeatable, limit: declared.limit() };
        let answer = guest.run(&command, permit).await?;
        for note in &answer.notes {
            permit.progress(note);
        }
        if answer.value.ok() {
            return Ok(());
        }
        let (guest, command) = (guest.name().to_owned(), quote(&declared.command));
        Err(StepFault::Command { guest, command, route: answer.route, how: answer.value.summary() }.into())
    }

    fn unclear(&self, drivers: &Drivers, said: &str) -> Problem {
        Problem::new(
            format!(
                "vm {}: `{}` could not say whether the drivers are there: {said}",
                self.vm.vmid,
                quote(&drivers.check.command)
            ),
            "see `drivers.check.command` of the migration: the program's absolute path, and its rights in the guest",
        )
    }
}

/// A program that is not there, may not be run or was killed has said nothing: 126 and 127 are a shell's words for
/// the first two, 128 and more for the third (the agent tells it so).
fn verdict(output: &Output) -> Verdict {
    match &output.exit {
        Exit::Status(0) => Verdict::There,
        Exit::Status(1..=125) => Verdict::Missing(output.summary()),
        Exit::Status(_) | Exit::Signal(_) => Verdict::Unclear(output.summary()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_did_not_run_says_nothing() {
        let output = |exit| Output { exit, stdout: String::new(), stderr: "x\n".into(), truncated: false };
        assert_eq!(verdict(&output(Exit::Status(0))), Verdict::There);
        assert_eq!(verdict(&output(Exit::Status(1))), Verdict::Missing("exit 1: x".into()));
        for exit in [Exit::Status(126), Exit::Status(127), Exit::Status(137), Exit::Signal("KILL".into())] {
            assert!(matches!(verdict(&output(exit.clone())), Verdict::Unclear(_)), "{exit:?}");
        }
    }

    #[test]
    fn an_install_that_may_be_sent_once_is_watched_for_as_long_as_it_may_run() {
        let declared = |repeatable| Declared { command: vec!["x".into()], repeatable, limit: 900 };
        let step = |repeatable| InstallDrivers {
            vm: Vm { cluster: "home".into(), vmid: 108, node: "n".into() },
            drivers: Some(Drivers { check: declared(false), install: declared(repeatable), remove: None }),
        };
        assert_eq!(Step::limit(&step(false)), Duration::from_secs(900));
        assert_eq!(Step::limit(&step(true)), Duration::from_secs(60));
    }
}
