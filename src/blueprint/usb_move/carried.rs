//! The device on its way back: what a person is asked for until it is where it was.

use crate::base::check::Check;

use super::device::{Device, Place};

impl Device {
    /// What a person is asked for until the device is back at `was`; None where it is. At the slow side of its socket it
    /// is not, where it is slower than the site wants and than it was.
    pub fn ask_back(&self, seen: &[Place], was: &Place) -> Option<Check<()>> {
        let wanted = self.min_speed.map(|min| was.speed.map_or(min, |speed| speed.min(min)));
        let slow = |p: &Place| matches!((p.speed, wanted), (Some(speed), Some(wanted)) if speed < wanted);
        let home: Vec<&Place> = seen.iter().filter(|p| self.same_socket(p, was)).collect();
        if home.iter().any(|p| !slow(p)) {
            return None;
        }
        let (ask, hint) = match home.first() {
            Some(now) => (
                format!("replug {} in {}, port {}: it came up slow", self.title(), was.host, was.port),
                Some(format!("it is at {now}; at least {} Mbit/s are wanted", wanted.unwrap_or(0))),
            ),
            None => {
                let all = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                (
                    format!("plug {} back into {}, port {}", self.title(), was.host, was.port),
                    (!all.is_empty()).then(|| format!("it is at {all} now")),
                )
            }
        };
        Some(Check::manual(ask, hint, Some(self.plug(&was.host, Some(&was.port)))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::Socket;
    use super::*;
    use crate::base::check::Answer;

    #[test]
    fn a_device_that_came_back_slow_is_not_back() {
        let at = |host: &str, port: &str, speed: Option<u32>| Place {
            host: host.into(),
            speed,
            port: port.parse().unwrap(),
            id: "18d1:9302".parse().unwrap(),
        };
        let socket = Socket { port: "2-1".parse().unwrap(), sibling: Some("1-1".parse().unwrap()) };
        let mut device = Device {
            name: "coral".into(),
            ids: vec!["18d1:9302".parse().unwrap()],
            serial: None,
            min_speed: Some(5000),
            sockets: [("fawn".to_owned(), socket)].into(),
            mapping: None,
        };
        let ask = |device: &Device, seen: &[Place], speed: Option<u32>| match device
            .ask_back(seen, &at("fawn", "2-1", speed))
            .map(|check| check.answer)
        {
            None => String::new(),
            Some(Answer::Manual { ask, .. }) => ask.split(' ').next().unwrap().to_owned(),
            Some(other) => panic!("{other:?}"),
        };
        let (fast, slow) = (at("fawn", "2-1", Some(5000)), at("fawn", "1-1", Some(480)));
        let table: &[(&[Place], Option<u32>, &str)] = &[
            (std::slice::from_ref(&fast), Some(5000), ""),
            (std::slice::from_ref(&slow), Some(5000), "replug"),
            (std::slice::from_ref(&slow), None, "replug"),
            // It was no faster before.
            (std::slice::from_ref(&slow), Some(480), ""),
            (&[slow.clone(), fast.clone()], Some(5000), ""),
            (&[at("fawn", "1-1", None)], Some(5000), ""),
            (&[at("fawn", "2-9", Some(5000))], Some(5000), "plug"),
            (&[at("pve", "2-1", Some(5000))], Some(5000), "plug"),
            (&[], Some(5000), "plug"),
        ];
        for (i, (seen, speed, word)) in table.iter().enumerate() {
            assert_eq!(ask(&device, seen, *speed), *word, "row {i}");
        }
        assert_eq!(table.len(), 9);
        device.min_speed = None;
        assert_eq!(ask(&device, &[slow], Some(5000)), "");
    }
}
