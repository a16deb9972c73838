//! Port blocks that follow from a host's number alone (RFC 7422): who had a port is computed, not
//! looked up in a log. Which hosts there are, and their numbers from 0, is for the caller to say.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

/// How the ports of some external addresses are dealt out to hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks<'a> {
    /// External addresses, filled one after the other.
    pub external: &'a [Ipv4Addr],
    /// The ports that are dealt out.
    pub ports: (u16, u16),
    /// Ports of each host.
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

/// The external address and the ports of a host; none beyond the last block.
pub fn block(blocks: &Blocks<'_>, host: u32) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
    let external = host.checked_div(blocks.per_address())?;
    let address = blocks.external.get(external as usize)?;
    let size = u32::from(blocks.size);
    let first = u32::from(blocks.ports.0) + host % blocks.per_address() * size;
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(first + size - 1).ok()?);
    Some((*address, first..=last))
}

/// The host that had a port of an external address.
pub fn owner(blocks: &Blocks<'_>, external: Ipv4Addr, port: u16) -> Option<u32> {
    let address = blocks.external.iter().position(|&address| address == external)?;
    let block = u32::from(port.checked_sub(blocks.ports.0)?).checked_div(blocks.size.into())?;
    if block >= blocks.per_address() {
        return None;
    }
    u32::try_from(address).ok()?.checked_mul(blocks.per_address())?.checked_add(block)
}
