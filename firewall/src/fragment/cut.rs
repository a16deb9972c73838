//! Making fragments of a packet (RFC 791 3.2): where it is cut, and the header of each piece.

use smoltcp::wire::Ipv4Packet;

/// One piece of a packet that is too large for its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the packet's IP payload, in octets.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Cuts an IP payload of `length` octets so that each piece, with `header` octets in front, fits `mtu`
/// (RFC 791 3.2); in order. None if not even 8 octets fit.
pub fn pieces(header: usize, length: usize, mtu: usize) -> Option<impl Iterator<Item = Piece>> {
    let room = mtu.checked_sub(header)? & !7;
    (room > 0)
        .then(|| (0..length).step_by(room).map(move |start| Piece { start, end: length.min(start + room) }))
}

/// Makes the IPv4 header, which is all of `head`, that of a piece.
///
/// `offset` and `more` are those of the packet that is cut; `length` is that of its IP payload.
pub fn set_piece(head: &mut [u8], piece: Piece, offset: u16, more: bool, length: usize) {
    if head.len() < 20 || head.len() < usize::from(head[0] & 0x0f) * 4 {
        return;
    }
    let mut header = Ipv4Packet::new_unchecked(head);
    let header_len = usize::from(header.header_len());
    header.set_total_len((header_len + piece.end - piece.start) as u16);
    header.set_frag_offset(offset.saturating_add(piece.start as u16));
    header.set_more_frags(more || piece.end < length);
    header.fill_checksum();
}

/// Gives the IPv4 header at the beginning of `head` another identification.
pub fn set_identification(head: &mut [u8], identification: u16) {
    if head.len() >= 20 && head.len() >= usize::from(head[0] & 0x0f) * 4 {
        let mut header = Ipv4Packet::new_unchecked(head);
        header.set_ident(identification);
        header.fill_checksum();
    }
}
