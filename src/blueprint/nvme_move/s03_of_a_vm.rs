//! 03 of a VM: it goes off with its host in view, stays off while that is switched, and comes back with its own drives alone.

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::power::{shutdown, start, start_again, write_config};
use crate::blueprint::vm::Vm;
use crate::engine::step::Seen;
use crate::estate::Estate;
use crate::proxmox::ConfigChange;

use super::behind;
use super::remembered::{off_file, on_file, went_off};
use super::s03_shutdown::{Before, ShutDown};

impl ShutDown {
    /// A VM that this run was to switch off, and its host is silent. Where the run has seen it go off, somebody is at its
    /// drives, as he was asked to be; else the host has to answer first. None: it is none, or its host answers.
    pub(super) async fn with_its_host(
        &self,
        cx: &Estate,
        seen: &Seen<'_, Before>,
    ) -> Result<Option<Check<Before>>, Failure> {
        let (Some(vm), Some(_), Some(passed)) = (&self.machine.vm, seen.since, behind::passed(seen.run)?) else {
            return Ok(None);
        };
        let (name, host) = (&self.machine.name, &passed.host);
        let behind::Host::Silent(why) = behind::view(cx, &vm.cluster, host).await? else { return Ok(None) };
        let error = match self.machine.open(cx).await?.version().await {
            Err(error @ (crate::talos::Error::Unreachable { .. } | crate::talos::Error::NoAnswer { .. })) => error,
            Ok(_) | Err(_) => return Ok(None),
        };
        if went_off(seen.run)? {
            let how = format!("{name} does not answer ({error}), nor does its host {host}: {why}");
            return Ok(Some(Check::done().note(how)));
        }
        Ok(Some(Check::waiting(format!(
            "whether vm {} went off is not known: {host} does not answer ({why}), and this run has not seen it off; let {host} answer \
             first",
            vm.vmid
        ))))
    }

    /// It is off. A VM has to stay so while its host is switched off and on, and it has to be known which line had which drive.
    pub(super) async fn stays_off(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(Check::done()) };
        let (vmid, passed) = (vm.vmid, behind::passed(seen.run)?);
        let (Some(since), Some(_)) = (seen.since, passed) else {
            return Ok(Check::blocked(vec![Problem::new(
                format!(
                    "vm {vmid} is off, and this run has not seen it on: which of its hostpci lines has which drive is not known"
                ),
                format!(
                    "`qm start {vmid}` with its drives where they were, then `pvemig resume`; where they were moved already: {}",
                    behind::mend(vmid)
                ),
            )]));
        };
        let (_, _, (status, config)) = vm.state_and_config(cx).await?;
        if status.is_ha_managed() {
            return Ok(Check::blocked(vec![of_ha(vmid)]));
        }
        if config.configured("onboot") == Some("1") {
            return Ok(Check::todo(vec![Change::set(format!("vm {vmid} onboot"), "1", "0")], since.clone()));
        }
        Ok(Check::done())
    }

    /// Whether the VM is on again, as it was.
    pub(super) async fn vm_back(
        &self,
        cx: &Estate,
        vm: &Vm,
        before: &Before,
        seen: &Seen<'_, Before>,
    ) -> Result<Check<()>, Failure> {
        let (pve, at, (status, config)) = vm.state_and_config(cx).await?;
        if !status.is_running() {
            let problems = behind::in_the_way_of_a_start(cx, &self.machine, &self.plan, seen.run).await?;
            if !problems.is_empty() {
                return Ok(Check::blocked(problems));
            }
        }
        if before.onboot && config.configured("onboot") != Some("1") {
            return Ok(Check::todo(vec![Change::set(format!("vm {} onboot", vm.vmid), "0", "1")], ()));
        }
        if status.is_running() { Ok(Check::done()) } else { start_again(&pve, &at, seen.got).await }
    }

    /// Switches the VM on again.
    pub(super) async fn vm_on(
        &self,
        cx: &Estate,
        vm: &Vm,
        before: &Before,
        seen: &Seen<'_, Before>,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let (pve, at, (status, config)) = vm.state_and_config(cx).await?;
        if !status.is_running() {
            // Neither by this step nor by its host.
            let problems = behind::in_the_way_of_a_start(cx, &self.machine, &self.plan, seen.run).await?;
            if !problems.is_empty() {
                return Err(Failure::barred(problems));
            }
        }
        if before.onboot && config.configured("onboot") != Some("1") {
            write_config(&pve, &at, &onboot(true, &config.digest), permit).await?;
        }
        if status.is_running() || start_again(&pve, &at, seen.got).await?.is_done() {
            return Ok(());
        }
        start(&pve, &at, permit).await
    }
}

/// Switches the VM off, the `count`th time in this run, and notes that it went off from this boot.
pub(super) async fn vm_off(cx: &Estate, vm: &Vm, (boot, count): (&str, usize), permit: &Permit) -> Result<(), Failure> {
    let (pve, at, config) = vm.config(cx).await?;
    if config.configured("onboot") == Some("1") {
        // Its host would start it with the drive at the old address.
        write_config(&pve, &at, &onboot(false, &config.digest), permit).await?;
    }
    permit.file(&on_file(count), boot.as_bytes())?;
    shutdown(&pve, &at, permit).await?;
    permit.file(&off_file(count), boot.as_bytes())?;
    Ok(())
}

/// Its host is about to be switched off and on, and must not start it.
pub(super) async fn not_with_its_host(cx: &Estate, vm: &Vm, permit: &Permit) -> Result<(), Failure> {
    let (pve, at, (status, config)) = vm.state_and_config(cx).await?;
    if !status.is_running() && config.configured("onboot") == Some("1") {
        write_config(&pve, &at, &onboot(false, &config.digest), permit).await?;
    }
    Ok(())
}

pub(super) fn of_ha(vmid: u32) -> Problem {
    let text = format!("vm {vmid} is managed by high availability, which would start it again");
    Problem::new(text, format!("`ha-manager remove vm:{vmid}` first"))
}

fn onboot(on: bool, digest: &str) -> ConfigChange {
    let value = if on { "1" } else { "0" };
    ConfigChange {
        set: vec![("onboot".into(), value.into())],
        digest: Some(digest.to_owned()),
        ..ConfigChange::default()
    }
}
