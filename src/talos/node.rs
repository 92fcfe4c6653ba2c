//! A node's place: its name, and where it is.

/// apid's port.
const PORT: u16 = 50000;

/// Which node, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, for people.
    pub name: String,
    /// `10.10.0.20`, `talos-20.lan:50000`, `[fd00::20]`, or a URL as a talosconfig has it.
    pub address: String,
    /// The name or address that its certificate has to have, where `address` is not in it (a forwarded port).
    pub tls_name: Option<String>,
}

/// Host and port of an address as a talosconfig has it: a URL without a port means 443, anything else 50000.
pub(super) fn place(address: &str) -> Result<(String, u16), String> {
    let bad = || format!("`{address}` is no address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000");
    let (rest, default) = match address.strip_prefix("https://") {
        Some(rest) => (rest.trim_end_matches('/'), 443),
        None => (address, PORT),
    };
    let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, behind) = inner.split_once(']').ok_or_else(bad)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':').ok_or_else(bad)?) })
    } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
        (rest, None)
    } else {
        rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
    };
    let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| bad()))?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    if host.is_empty() || !host.chars().all(good) { Err(bad()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn addresses_are_read_as_talosctl_reads_them() {
        let good = [
            ("10.10.0.20", "10.10.0.20", 50000),
            ("10.10.0.20:5443", "10.10.0.20", 5443),
            ("talos-20.lan", "talos-20.lan", 50000),
            ("fd00::20", "fd00::20", 50000),
            ("[fd00::20]", "fd00::20", 50000),
            ("[fd00::20]:1", "fd00::20", 1),
            ("https://talos.lan", "talos.lan", 443),
            ("https://talos.lan:8443/", "talos.lan", 8443),
        ];
        for (given, host, port) in good {
            assert_eq!(place(given).unwrap(), (host.to_owned(), port), "{given}");
        }
        let bad =
            ["", ":1", "a b", "a:99999", "[fd00::20", "[x]:1", "http://talos.lan", "a/b", "user@a", "[fd00::20]1"];
        assert_eq!(bad.iter().filter(|given| place(given).is_err()).count(), 10);
        assert_eq!(good.len(), 8);
    }
}
