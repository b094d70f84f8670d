//! Which network is ours: chosen once, away from every route of the machine.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use crate::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address, which the bridge has.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Addresses for containers.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.base + 2..self.base | !self.mask()).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (base, prefix) = text.trim().split_once('/').ok_or(())?;
        let subnet = Self {
            base: base.parse::<Ipv4Addr>().map_err(|_| ())?.into(),
            prefix: prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix)).ok_or(())?,
        };
        if subnet.base & !subnet.mask() == 0 { Ok(subnet) } else { Err(()) }
    }
}

/// Reads the choice, or makes it.
pub fn choose(file: &Path) -> Result<Subnet, Error> {
    if let Some(subnet) = std::fs::read_to_string(file).ok().and_then(|text| text.parse().ok()) {
        return Ok(subnet);
    }
    let path = "/proc/net/route";
    let routes = std::fs::read_to_string(path).map_err(Error::io("reading", path))?;
    let subnet = candidates().find(|subnet| !is_routed(&routes, *subnet)).ok_or(Error::Exhausted)?;
    std::fs::write(file, subnet.to_string()).map_err(Error::io("writing", file))?;
    Ok(subnet)
}

/// Docker's pools, without the one that Docker's own bridge has.
fn candidates() -> impl Iterator<Item = Subnet> {
    let large = (18..=31).map(|octet| Subnet { base: u32::from_be_bytes([172, octet, 0, 0]), prefix: 16 });
    let small = (0..16).map(|at| Subnet { base: u32::from_be_bytes([192, 168, at * 16, 0]), prefix: 20 });
    large.chain(small)
}

/// A route of the kernel's table (little-endian hex columns 2 and 8) overlaps `subnet`. The default route does not
/// count.
fn is_routed(table: &str, subnet: Subnet) -> bool {
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(columns.get(at)?, 16).ok().map(u32::swap_bytes);
        let (Some(net), Some(mask)) = (number(1), number(7)) else { return false };
        let mask = mask & subnet.mask();
        mask != 0 && net & mask == subnet.base & mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn routes_that_overlap_are_seen() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n\
            br0 000012AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
            br1 050013AC 00000000 0001 0 0 0 FFFFFFFF 0 0 0\n";
        assert!(is_routed(table, subnet("172.18.0.0/16")), "the same network");
        assert!(is_routed(table, subnet("172.19.0.0/16")), "a host inside");
        assert!(!is_routed(table, subnet("172.20.0.0/16")), "the default route is no overlap");
    }

    #[test]
    fn what_is_written_is_read_and_hosts_lie_inside() {
        for subnet in candidates() {
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
        }
        let small = subnet("192.168.16.0/20");
        assert_eq!(small.gateway(), Ipv4Addr::new(192, 168, 16, 1));
        assert_eq!(small.hosts().next(), Some(Ipv4Addr::new(192, 168, 16, 2)));
        assert_eq!(small.hosts().last(), Some(Ipv4Addr::new(192, 168, 31, 254)));
        for wrong in ["18", "172.18.0.1/16", "172.18.0.0/40", ""] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong:?}");
        }
    }
}
