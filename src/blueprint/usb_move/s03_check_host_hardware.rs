//! 03: the target's host shows the device. A person carries it there.

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check, Problem};
use crate::base::fault::Failure;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::device::{Device, Place, Sight, Vm};

/// Waits until the host of the target VM shows the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckHostHardware {
    /// The VM that gets the device.
    pub vm: Vm,
    /// The VM that had it: on its host the device is looked for first, so that it can be brought back.
    pub source: Vm,
    /// The device.
    pub device: Device,
}

/// Where the device was when a person was asked to carry it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// None where it was at neither of the two hosts.
    pub place: Option<Place>,
    /// Where it was on its way, at another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_its_way: Option<Place>,
}

impl Step<Estate> for CheckHostHardware {
    const ID: &'static str = "03-check-host-hardware";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("the host of vm {} ({}) shows {}", self.vm.vmid, self.vm.node, self.device.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A VM starts without complaint when its device is absent, so the host is asked before anything else."
                .into(),
            "By hand: `lsusb` on the host, and `lsusb -t` for the speed.".into(),
            "A Coral shows 1a6e:089a until its first inference and 18d1:9302 afterwards; either will do.".into(),
            "At 480 Mbit/s it sits in a USB2 socket or behind a USB2 cable: inference is then several times slower."
                .into(),
        ]
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let vm = format!("vm {} ({})", self.vm.vmid, self.vm.node);
        let back = format!("plug {} back where it was, if it was carried", self.device.name);
        Outlook::default().asks(format!("plug {} into the host of {vm}", self.device.title())).asks_back(back)
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (at, sight) = self.device.look_at_host_of(cx, &self.vm).await?;
        let host = at.node.as_str();
        let wanted = self.device.sockets.get(host);
        let absent = matches!(sight, Sight::Absent(..));
        let (ask, mut hint) = match sight {
            Sight::CannotSee(reasons) => {
                return Ok(Check::blocked(vec![Problem::new(
                    format!("the USB devices of {host} cannot be seen: {}", reasons.join("; ")),
                    format!(
                        "give these credentials Sys.Modify on /, a mapping for {host}, or ssh to {host} in the site file"
                    ),
                )]));
            }
            Sight::Here(places, by) => {
                let at_port = |p: &Place| wanted.is_none_or(|w| w.port == p.port);
                let fast = |p: &Place| match (self.device.min_speed, p.speed) {
                    (Some(min), Some(speed)) => speed >= min,
                    _ => true,
                };
                if let Some(place) = places.iter().find(|p| at_port(p) && fast(p)) {
                    return Ok(Check::done().note(format!("{place}, by {by}")));
                }
                let place = places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let sibling = wanted.and_then(|w| w.sibling.as_ref()).filter(|s| places.iter().any(|p| p.port == **s));
                match (wanted, sibling) {
                    (Some(wanted), Some(sibling)) => (
                        format!("replug {} in {host}: it came up on the slow bus", self.device.title()),
                        format!("it is at {place}; {sibling} is the slow side of {}", wanted.port),
                    ),
                    (Some(wanted), None) if !places.iter().any(at_port) => (
                        format!("move {} to port {} of {host}", self.device.title(), wanted.port),
                        format!("it is at {place}; the site file says {}", wanted.port),
                    ),
                    _ => (
                        format!("move {} to a faster socket of {host}", self.device.title()),
                        format!("it is at {place}; at least {} Mbit/s are wanted", self.device.min_speed.unwrap_or(0)),
                    ),
                }
            }
            Sight::Absent(others, by) => {
                let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let others = if others.is_empty() { "no other device".to_owned() } else { others };
                let socket = wanted.map(|w| format!(", port {}", w.port)).unwrap_or_default();
                (format!("plug {} into {host}{socket}", self.device.title()), format!("{by} shows {others}"))
            }
        };
        let mut before = self.origin(cx, host).await?;
        if absent && before.place.is_none() {
            before.on_its_way = self.elsewhere(cx, host).await;
            if let Some(place) = &before.on_its_way {
                hint = format!("it is seen as {place}; {hint}");
            }
        }
        let mut check = Check::manual(ask, Some(hint), Some(self.device.plug(host, wanted.map(|w| &w.port))));
        if let Answer::Manual { before: owed, .. } = &mut check.answer {
            *owed = Some(before);
        }
        Ok(check)
    }

    async fn back(&self, cx: &Estate, before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some(place) = &before.place else {
            let found = before.on_its_way.as_ref().map(|place| format!(", as {place}")).unwrap_or_default();
            return Ok(Check::done().stays([format!(
                "the device was on its way already when a person was asked for it{found}: it stays where it is, unless \
                 step 01 took it from vm {}, whose undo asks for it back",
                self.source.vmid
            )]));
        };
        let sight = self.device.look(cx, &self.vm.cluster, &place.host).await?;
        if let Sight::CannotSee(reasons) = &sight {
            return Ok(Check::blocked(vec![Problem::new(
                format!("whether the device is back at {place} cannot be seen: {}", reasons.join("; ")),
                format!("let {} be seen again, then run undo again", place.host),
            )]));
        }
        Ok(self.device.ask_back(sight.places(), place).unwrap_or_else(Check::done))
    }
}

impl CheckHostHardware {
    /// Where else in the cluster the device shows. This is to help the person who looks for it: a host that cannot be
    /// asked is passed over.
    async fn elsewhere(&self, cx: &Estate, target: &str) -> Option<Place> {
        let cluster = &self.source.cluster;
        let nodes = cx.proxmox(cluster).await.ok()?.nodes().await.ok()?;
        let others = nodes.iter().filter(|node| node.status == "online" && node.node != target);
        let looks = others.map(|node| self.device.look(cx, cluster, &node.node));
        futures::future::join_all(looks).await.iter().flatten().flat_map(Sight::places).next().cloned()
    }

    /// Where the device is before it is carried: at the source's host, or in another socket of the target's.
    async fn origin(&self, cx: &Estate, target: &str) -> Result<Before, Failure> {
        let (source, mut sight) = self.device.look_at_host_of(cx, &self.source).await?;
        let mut host = source.node.as_str();
        if sight.places().is_empty() {
            host = target;
            sight = self.device.look(cx, &self.source.cluster, host).await?;
        }
        let seen = !sight.places().is_empty();
        let on_its_way = None;
        Ok(Before { on_its_way, place: if seen { self.device.origin(host, sight.places(), &[]) } else { None } })
    }
}
