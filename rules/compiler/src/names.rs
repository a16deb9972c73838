//! How addresses, numbers and well-known names are written.

use std::net::Ipv4Addr;

use rules::site::Prefix;

/// A decimal number without leading zeros (nft would read those as octal).
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// An IPv4 address: four decimal numbers.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, String> {
    let parts: Vec<&str> = text.split('.').take(5).collect();
    let is_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let shown = crate::diagnostics::quoted(text);
    if parts.len() != 4 || !parts.iter().all(is_digits) {
        return Err(format!("{shown} is no IPv4 address"));
    }
    if parts
        .iter()
        .any(|part| part.len() > 1 && part.starts_with('0'))
    {
        return Err(format!(
            "{shown} has a leading zero, which some read as octal"
        ));
    }
    text.parse()
        .map_err(|_| format!("{shown} is no IPv4 address: each part is 0 to 255"))
}

/// An address with a prefix length; host bits are kept.
pub(crate) fn prefix(text: &str) -> Result<Prefix, String> {
    let shown = crate::diagnostics::quoted(text);
    let (before, after) = text
        .split_once('/')
        .ok_or_else(|| format!("{shown} has no prefix length"))?;
    let address = address(before)?;
    let length = decimal(after)
        .and_then(|length| u8::try_from(length).ok())
        .filter(|&length| length <= 32);
    let length = length.ok_or_else(|| format!("{shown}: a prefix length is 0 to 32"))?;
    Ok(Prefix { address, length })
}

/// A unicast MAC.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let shown = crate::diagnostics::quoted(text);
    let wrong = || format!("{shown} is no MAC address, such as \"52:54:00:00:00:01\"");
    let parts: Vec<&str> = text.split(':').take(7).collect();
    let parts: [&str; 6] = parts.try_into().map_err(|_| wrong())?;
    let mut mac = [0; 6];
    for (octet, part) in mac.iter_mut().zip(parts) {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if mac[0] & 1 != 0 {
        return Err(format!(
            "{shown} has the group bit set: it names many, not one NIC"
        ));
    }
    if mac == [0; 6] {
        return Err(format!("{shown} is the MAC address of nobody"));
    }
    Ok(mac)
}
