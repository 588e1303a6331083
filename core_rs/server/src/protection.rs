//! What protects the server from clients that are hostile, broken or too many. Everything is off by
//! default, so that each part can be tried without the others; the figures for real use are those of
//! the settings (`config.py`).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::Error;

/// See each field; 0 or an empty list: off.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Protection {
    /// Whose connections begin with a PROXY header, and must.
    pub proxy_networks: Vec<Network>,
    /// From a trusted connection to its whole header.
    pub proxy_timeout: Duration,
    /// At once, of one address.
    pub connections_per_address: u32,
    /// New ones of one address; as many may come at once.
    pub connections_per_address_per_minute: u32,
    /// So many leading bits of an IPv6 address are one client: whoever has one address of a network has
    /// all of them (RFC 6177).
    pub ipv6_prefix_bits: u32,
    /// From the connection to the login.
    pub login_timeout: Duration,
    /// The 535 of a first failure waits for so long, that of each further one twice as long as the last.
    pub login_delay: Duration,
    /// The longest that a 535 waits.
    pub login_delay_max: Duration,
    /// More failures of one address within the window ban it.
    pub login_failures_before_ban: u32,
    /// In so much time that many failures are forgiven.
    pub login_failures_window: Duration,
    /// A ban lasts for so long.
    pub login_ban: Duration,
    /// In a message's text a client must send at least so much on the average.
    pub min_data_bytes_per_second: u32,
    /// Before the rate counts.
    pub min_data_grace: Duration,
    /// Sessions that one credential has at once.
    pub sessions_per_credential: u32,
}

impl Protection {
    /// Sets one field by its name and in its unit, as the settings have it. Errors: there is no such
    /// field, or the value is none that it can have.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), Error> {
        match name {
            "max_connections_per_address" => self.connections_per_address = count(value)?,
            "max_new_connections_per_address_per_minute" => {
                self.connections_per_address_per_minute = count(value)?;
            }
            "ipv6_prefix_bits" => self.ipv6_prefix_bits = count(value)?.min(128),
            "min_data_bytes_per_second" => self.min_data_bytes_per_second = count(value)?,
            "login_failures_before_ban" => self.login_failures_before_ban = count(value)?,
            "proxy_protocol_timeout_seconds" => self.proxy_timeout = seconds(value)?,
            "login_timeout_seconds" => self.login_timeout = seconds(value)?,
            "login_delay_seconds" => self.login_delay = seconds(value)?,
            "login_delay_max_seconds" => self.login_delay_max = seconds(value)?,
            "login_failures_window_seconds" => self.login_failures_window = seconds(value)?,
            "login_ban_seconds" => self.login_ban = seconds(value)?,
            "min_data_grace_seconds" => self.min_data_grace = seconds(value)?,
            "max_sessions_per_credential" => self.sessions_per_credential = count(value)?,
            _ => return Err(refuse(format!("there is no {name:?}"))),
        }
        Ok(())
    }

    /// Does this connection begin with a PROXY header?
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxy_networks
            .iter()
            .any(|network| network.contains(address))
    }

    /// Nothing about addresses is to be known.
    pub(crate) fn needs_addresses(&self) -> bool {
        self.connections_per_address > 0
            || self.connections_per_address_per_minute > 0
            || self.needs_failures()
    }

    pub(crate) fn needs_failures(&self) -> bool {
        self.login_failures_before_ban > 0 || !self.login_delay.is_zero()
    }

    /// One client, as far as limits go.
    pub(crate) fn client(&self, address: IpAddr) -> u128 {
        let bits = match address.to_canonical() {
            IpAddr::V4(address) => return address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        bits & mask(if self.ipv6_prefix_bits == 0 {
            128
        } else {
            self.ipv6_prefix_bits
        })
    }
}

/// Addresses with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
}

impl Network {
    /// `ADDRESS/BITS` or one address. Errors: it is none; bits beyond the prefix are set.
    pub fn read(text: &str) -> Result<Self, Error> {
        let none = || {
            refuse(format!(
                "{text:?} is no network, write 10.0.0.0/8 or 2001:db8::/32"
            ))
        };
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let (address, width) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 32),
            IpAddr::V6(address) => (address, 128),
        };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| none())?;
        if bits > width {
            return Err(none());
        }
        let bits = bits + (128 - width);
        if Ipv6Addr::to_bits(address) & !mask(bits) != 0 {
            return Err(refuse(format!("{text:?} has bits set beyond its prefix")));
        }
        Ok(Self {
            address: address.to_bits(),
            bits,
        })
    }

    /// IPv4 within IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        bits & mask(self.bits) == self.address
    }
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

fn count(value: f64) -> Result<u32, Error> {
    if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&value) {
        return Err(refuse(format!("{value} is no count")));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It was looked at above.
    Ok(value as u32)
}

fn seconds(value: f64) -> Result<Duration, Error> {
    // A year: beyond, the arithmetic of deadlines may overflow, and nobody means it.
    const MOST: f64 = 365.0 * 86_400.0;
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| duration.as_secs_f64() <= MOST)
        .ok_or_else(|| {
            refuse(format!(
                "{value} is not a time between 0 and {MOST:.0} seconds"
            ))
        })
}

fn refuse(problem: String) -> Error {
    Error::Setting {
        name: "protection",
        problem,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        let v4 = Network::read("10.1.0.0/16").unwrap();
        assert!(v4.contains(ip("10.1.255.3")) && v4.contains(ip("::ffff:10.1.2.3")));
        assert!(!v4.contains(ip("10.2.0.1")) && !v4.contains(ip("2001:db8::1")));
        let v6 = Network::read("2001:db8::/32").unwrap();
        assert!(v6.contains(ip("2001:db8:1::9")) && !v6.contains(ip("2001:db9::9")));
        assert!(!v6.contains(ip("32.1.13.184")));
        assert!(
            Network::read("192.0.2.7")
                .unwrap()
                .contains(ip("192.0.2.7"))
        );
        assert!(
            !Network::read("192.0.2.7")
                .unwrap()
                .contains(ip("192.0.2.8"))
        );
        let all = Network::read("0.0.0.0/0").unwrap();
        assert!(all.contains(ip("198.51.100.1")) && !all.contains(ip("2001:db8::1")));
        assert!(Network::read("::/0").unwrap().contains(ip("198.51.100.1")));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/-1",
            "::/129",
            "x",
            "10.0.0.0/8/8",
        ] {
            assert!(Network::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        let protection = Protection {
            ipv6_prefix_bits: 64,
            ..Protection::default()
        };
        let client = |text| protection.client(ip(text));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn fields_are_set_by_name() {
        let mut protection = Protection::default();
        protection.set("login_ban_seconds", 1.5).unwrap();
        protection.set("max_connections_per_address", 7.0).unwrap();
        assert_eq!(protection.login_ban, Duration::from_millis(1500));
        assert_eq!(protection.connections_per_address, 7);
        for (name, value) in [
            ("login_ban_seconds", -1.0),
            ("login_ban_seconds", f64::NAN),
            ("max_connections_per_address", 0.5),
            ("no_such", 1.0),
        ] {
            assert!(protection.set(name, value).is_err(), "{name} {value}");
        }
    }
}
