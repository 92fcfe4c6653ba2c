//! 04 of a VM: its drives are in its host, which is switched off for them, and which shows by itself where they are.

use crate::base::check::Check;
use crate::base::drives::Layout;
use crate::base::fault::Failure;
use crate::blueprint::vm::Vm;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::proxmox::Error;

use super::behind::{Host as Chassis, neighbours, passed, start_with_it, view};
use super::s04_asked::{Asked, ITS_HOST, called};
use super::s04_move_drives::{Before, MoveDrives};
use super::sight::{known, last};

impl MoveDrives {
    /// The host whose slots the plan speaks of, as far as the site file tells: the only one that has any there.
    pub(super) fn host_in_site<'c>(&self, cx: &'c Estate) -> Option<&'c str> {
        let vm = self.machine.vm.as_ref()?;
        let mut with = cx.site().proxmox.get(&vm.cluster)?.hosts.iter().filter(|(_, host)| !host.slots.is_empty());
        let (name, _) = with.next()?;
        with.next().is_none().then_some(name)
    }

    /// Of a VM that does not run: how its host stands. None: it is none, or it runs, and is asked itself.
    pub(super) async fn host_of_a_vm(&self, cx: &Estate, run: &RunInfo) -> Result<Option<(String, Chassis)>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(None) };
        // With its host off Proxmox may not answer; where the VM is this run knows since it went off.
        let host = match passed(run)? {
            Some(passed) => passed.host,
            None => match vm.status(cx).await? {
                (_, _, status) if status.is_running() => return Ok(None),
                (_, at, _) => at.node,
            },
        };
        let chassis = view(cx, &vm.cluster, &host).await?;
        if let Chassis::Silent(_) = chassis {
            return Ok(Some((host, chassis)));
        }
        match vm.status(cx).await {
            Ok((_, _, status)) if status.is_running() => Ok(None),
            Ok(_) => Ok(Some((host, chassis))),
            // The host has booted, and its Proxmox not yet.
            Err(failure) if failure.downcast_ref::<Error>().is_some() => {
                Ok(Some((host, Chassis::Silent(format!("Proxmox does not answer yet: {failure}")))))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The drives of a VM that does not run, in its host.
    pub(super) async fn in_a_host<B>(
        &self,
        cx: &Estate,
        (host, chassis): (String, Chassis),
        run: &RunInfo,
        layout: &Layout,
        forth: bool,
    ) -> Result<Check<B>, Failure>
    where
        Check<B>: From<Asked>,
    {
        if let Some(problem) = self.wrong_machine(cx, run).await? {
            return Ok(Check::blocked(vec![problem]));
        }
        let known = known(cx, &self.machine, &self.plan, run, None)?;
        let amiss = match &chassis {
            Chassis::Silent(why) => vec![format!("{host} does not answer: {why}")],
            Chassis::Shown(shown) => shown.amiss(&known.plan, layout),
        };
        if amiss.is_empty() {
            let of = layout.iter().map(|(slot, name)| format!("{} is in {slot} of {host}", called(&known.plan, name)));
            return Ok(Check::done().notes(of.collect::<Vec<_>>()));
        }
        // In the boot in which the VM went off nothing was moved; what hands its drives on may hide them there.
        let untouched = match &chassis {
            Chassis::Shown(shown) => passed(run)?.is_some_and(|passed| passed.boot == shown.boot),
            Chassis::Silent(_) => false,
        };
        if untouched && !forth && last(&known, run)? == *layout {
            return Ok(Check::done().note(format!("{host} has not been off since {} was", self.machine.name)));
        }
        let before = forth.then(|| Before { layout: known.plan.current.clone() });
        let from = match &chassis {
            Chassis::Shown(shown) => shown.seats(&known.plan, &last(&known, run)?),
            Chassis::Silent(_) if forth => last(&known, run)?,
            // Whether anything was moved is not known until it is on.
            Chassis::Silent(_) => layout.clone(),
        };
        let mut lines = if untouched { Vec::new() } else { amiss };
        if let (Chassis::Shown(_), Some(vm)) = (&chassis, &self.machine.vm) {
            lines.extend(beside(cx, vm, &host).await);
        }
        let mut asked = self.asked_of(cx, run, &known.plan, (&from, layout), (None, before))?;
        asked.ask = asked.ask.replacen(ITS_HOST, &format!("its host {host}"), 1);
        lines.push(asked.hint);
        asked.hint = lines.join("\n");
        Ok(asked.into())
    }
}

/// What is to be known of the other guests. Its host may be going down meanwhile, and nobody is kept from his work by that.
async fn beside(cx: &Estate, vm: &Vm, host: &str) -> Vec<String> {
    let asked = async {
        let with_it = neighbours(cx, vm).await?;
        let off = format!("{host} runs {} too: they go off with it, shut them down first", with_it.join(", "));
        let mut lines: Vec<String> = (!with_it.is_empty()).then_some(off).into_iter().collect();
        lines.extend(start_with_it(cx, vm, host).await?);
        Ok::<_, Failure>(lines)
    };
    asked.await.unwrap_or_else(|failure| vec![format!("the other guests of {host} could not be asked: {failure}")])
}
