//! Port blocks that follow from the internal address alone (RFC 7422): who had a port is computed,
//! not looked up in a log.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

/// How the ports of some external addresses are dealt out to a range of internal ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks<'a> {
    /// The first internal address.
    pub first: Ipv4Addr,
    /// External addresses, filled one after the other.
    pub external: &'a [Ipv4Addr],
    /// The ports that are dealt out.
    pub ports: (u16, u16),
    /// Ports of each internal address.
    pub size: u16,
}

impl Blocks<'_> {
    /// Blocks of one external address.
    const fn per_address(&self) -> u32 {
        let ports = (self.ports.1 as u32 + 1).saturating_sub(self.ports.0 as u32);
        match ports.checked_div(self.size as u32) {
            Some(blocks) => blocks,
            None => 0,
        }
    }
}

/// The external address and the ports that an internal address has; none beyond the last block.
pub fn block(blocks: &Blocks<'_>, internal: Ipv4Addr) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
    let at = u32::from(internal).checked_sub(u32::from(blocks.first))?;
    let external = at.checked_div(blocks.per_address())?;
    let address = blocks.external.get(external as usize)?;
    let size = u32::from(blocks.size);
    let first = u32::from(blocks.ports.0) + at % blocks.per_address() * size;
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(first + size - 1).ok()?);
    Some((*address, first..=last))
}

/// The internal address that had a port of an external address.
pub fn owner(blocks: &Blocks<'_>, external: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
    let address = blocks.external.iter().position(|&address| address == external)?;
    let block = u32::from(port.checked_sub(blocks.ports.0)?).checked_div(blocks.size.into())?;
    if block >= blocks.per_address() {
        return None;
    }
    let at = u32::try_from(address).ok()?.checked_mul(blocks.per_address())?.checked_add(block)?;
    u32::from(blocks.first).checked_add(at).map(Ipv4Addr::from)
}
