//! Which 172.x.0.0/16 is ours: chosen once, away from every route of the machine.

use std::path::Path;

use crate::Error;

/// Reads the choice, or makes it.
pub fn choose(file: &Path) -> Result<u8, Error> {
    if let Some(octet) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(octet);
    }
    let path = "/proc/net/route";
    let routes = std::fs::read_to_string(path).map_err(Error::io("reading", path))?;
    let octet = (18..=31).find(|octet| !is_routed(&routes, *octet)).ok_or(Error::Exhausted)?;
    std::fs::write(file, octet.to_string()).map_err(Error::io("writing", file))?;
    Ok(octet)
}

/// A route of the kernel's table (little-endian hex columns 2 and 8) overlaps 172.`octet`.0.0/16. The default route
/// does not count.
fn is_routed(table: &str, octet: u8) -> bool {
    let ours = u32::from_be_bytes([172, octet, 0, 0]);
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(columns.get(at)?, 16).ok().map(u32::swap_bytes);
        let (Some(net), Some(mask)) = (number(1), number(7)) else { return false };
        let mask = mask & 0xffff_0000;
        mask != 0 && net & mask == ours & mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_overlap_are_seen() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n\
            br0 000012AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
            br1 050013AC 00000000 0001 0 0 0 FFFFFFFF 0 0 0\n";
        assert!(is_routed(table, 18), "the same network");
        assert!(is_routed(table, 19), "a host inside");
        assert!(!is_routed(table, 20), "the default route is no overlap");
    }
}
