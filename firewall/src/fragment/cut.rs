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

/// Kinds of options, and their copied flag (RFC 791 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

/// Options that the first fragment alone has, as their copied flag is clear, become no operation: the
/// header stays as long as it is. What does not hold together is left as it is.
fn leave_uncopied_out(mut options: &mut [u8]) {
    while let Some(&kind) = options.first().filter(|&&kind| kind != END_OF_OPTIONS) {
        let length = match (kind, options.get(1)) {
            (NO_OPERATION, _) => 1,
            (_, Some(&length @ 2..)) => length.into(),
            _ => return,
        };
        let Some((option, rest)) = options.split_at_mut_checked(length) else { return };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

/// Makes the IPv4 header, which is all of `head`, that of a piece.
///
/// `offset` and `more` are those of the packet that is cut; `length` is that of its IP payload.
pub fn set_piece(head: &mut [u8], piece: Piece, offset: u16, more: bool, length: usize) {
    if head.len() < 20 || head.len() < usize::from(head[0] & 0x0f) * 4 {
        return;
    }
    if piece.start > 0 {
        leave_uncopied_out(head.get_mut(20..).unwrap_or_default());
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
