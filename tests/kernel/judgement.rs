//! When two packets are the same packet.

use std::net::SocketAddrV4;

use tests::View;

use crate::chosen::Freedom;
use crate::flow::{Both, Ends, Flow, Way};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The ends of a packet; of a query, its identifier is the port of who asked.
pub fn ends(octets: &[u8]) -> Ends {
    let view = View::new(octets);
    match view.protocol() {
        TCP | UDP => (view.from(), view.to()),
        ICMP if matches!(view.icmp().0, 8 | 13 | 15 | 17) => {
            (SocketAddrV4::new(view.source(), view.id()), SocketAddrV4::new(view.destination(), 0))
        }
        ICMP if matches!(view.icmp().0, 0 | 14 | 16 | 18) => {
            (SocketAddrV4::new(view.source(), 0), SocketAddrV4::new(view.destination(), view.id()))
        }
        _ => (SocketAddrV4::new(view.source(), 0), SocketAddrV4::new(view.destination(), 0)),
    }
}

/// Whether an ICMP message quotes a packet.
fn is_error(octets: &[u8]) -> bool {
    let view = View::new(octets);
    view.protocol() == ICMP && matches!(view.icmp().0, 3 | 4 | 5 | 11 | 12)
}

/// Offset of the transport header.
fn transport(octets: &[u8]) -> usize {
    usize::from(octets[0] & 15) * 4
}

/// Gives a packet, or the beginning of one, these ends.
fn set_ends(octets: &mut [u8], (from, to): Ends) {
    octets[12..16].copy_from_slice(&from.ip().octets());
    octets[16..20].copy_from_slice(&to.ip().octets());
    let start = transport(octets);
    let (own, other) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    match octets[9] {
        TCP | UDP => {
            octets[start..start + 2].copy_from_slice(&own);
            octets[start + 2..start + 4].copy_from_slice(&other);
        }
        ICMP if matches!(octets[start], 8 | 13 | 15 | 17) => {
            octets[start + 4..start + 6].copy_from_slice(&own)
        }
        ICMP if matches!(octets[start], 0 | 14 | 16 | 18) => {
            octets[start + 4..start + 6].copy_from_slice(&other)
        }
        _ => {}
    }
}

fn clear(octets: &mut [u8], range: std::ops::Range<usize>) {
    if let Some(octets) = octets.get_mut(range) {
        octets.fill(0);
    }
}

/// Clears what routers compute anew: checksums, and the identification where a packet may be cut (RFC 6864).
fn settle(octets: &mut [u8]) {
    clear(octets, 10..12);
    if octets[6] & 0x40 == 0 {
        clear(octets, 4..6);
    }
    let start = transport(octets);
    let at = match octets[9] {
        TCP => start + 16,
        UDP => start + 6,
        ICMP => start + 2,
        _ => return,
    };
    clear(octets, at..at + 2);
}

/// The packet that an error quotes, settled, without its time to live: a router may lower that before or after.
fn settle_quote(octets: &mut [u8]) {
    let at = transport(octets) + 8;
    let quote = &mut octets[at..];
    settle(quote);
    clear(quote, 8..9);
}

/// Whether a packet left both routers as the same.
///
/// # Errors
/// What differs.
pub fn alike(
    pair: &Both<Vec<u8>>,
    flow: Option<(&Flow, Way)>,
    may_show: impl Fn(SocketAddrV4, SocketAddrV4) -> bool,
    freedom: &Freedom,
) -> Result<(), String> {
    let [mut ours, mut theirs] = pair.clone();
    let seen = pair.each_ref().map(|octets| ends(octets));
    if is_error(&ours) && is_error(&theirs) {
        if let Some((flow, Way::Original)) = flow {
            error_fits(flow, pair)?;
            let at = transport(&theirs) + 8;
            set_ends(&mut ours[at..], ends(&theirs[at..]));
            set_ends(&mut ours, seen[1]);
        }
        settle_quote(&mut ours);
        settle_quote(&mut theirs);
    } else {
        let [(our_source, our_target), (their_source, their_target)] = seen;
        let is_original = flow.is_none_or(|(_, way)| way == Way::Original);
        let is_begun = flow.is_some_and(|(flow, _)| flow.last[0].is_some());
        let sources_fit = match flow {
            Some((flow, Way::Original)) if is_begun => {
                flow.seen.map(|(from, _)| from) == [our_source, their_source]
            }
            _ => our_source == their_source || (is_original && may_show(our_source, their_source)),
        };
        if !sources_fit {
            return Err(format!("the source is {our_source}, the kernel's is {their_source}"));
        }
        let targets_fit = match flow {
            Some((flow, Way::Original)) if is_begun => {
                flow.seen.map(|(_, to)| to) == [our_target, their_target]
            }
            _ => our_target == their_target || (is_original && freedom.allows(our_target, their_target)),
        };
        if !targets_fit {
            return Err(format!("the destination is {our_target}, the kernel's is {their_target}"));
        }
        set_ends(&mut ours, seen[1]);
    }
    settle(&mut ours);
    settle(&mut theirs);
    match ours == theirs {
        true => Ok(()),
        false => Err(format!("the packets differ\n  {ours:02x?}\n  {theirs:02x?}")),
    }
}

/// Whether an error from a flow's opener speaks of the endpoints that are known outside, and goes to the right one.
fn error_fits(flow: &Flow, pair: &Both<Vec<u8>>) -> Result<(), String> {
    for (octets, (shown, target)) in pair.iter().zip(flow.seen) {
        let ((source, destination), at) = (ends(octets), transport(octets) + 8);
        let quoted = ends(&octets[at..]);
        if quoted != (target, shown) {
            return Err(format!("the error quotes {quoted:?}, not a packet from {target} to {shown}"));
        }
        if (source.ip(), destination.ip()) != (shown.ip(), target.ip()) {
            return Err(format!(
                "the error goes from {source} to {destination}, not from {shown} to {target}"
            ));
        }
    }
    Ok(())
}

/// Whether both routers said the same to who sent a packet; whether the kernel's connection changed who says it.
///
/// # Errors
/// What differs.
pub fn answers_alike(ours: &[u8], theirs: &[u8], sent: &Both<Vec<u8>>) -> Result<bool, String> {
    let views = [ours, theirs].map(View::new);
    let protocol = views[0].protocol();
    let is_to_sender = views.iter().zip(sent).all(|(view, sent)| view.destination() == *ends(sent).0.ip());
    if protocol != views[1].protocol() || !is_to_sender {
        return Err("the answers go to different hosts, or are of different protocols".into());
    }
    let is_renamed = views[0].source() != views[1].source();
    if is_renamed && !(is_error(ours) && views[1].source() == View::new(&*sent[1]).destination()) {
        return Err("the answers come from different hosts".into());
    }
    match protocol {
        ICMP if is_error(ours) => errors_alike(&views, sent)?,
        ICMP if views[0].transport() == views[1].transport() => {}
        ICMP => return Err("the ICMP messages in answer differ".into()),
        TCP => {
            let resets = views.each_ref().map(|view| {
                let tcp = view.tcp();
                (view.tcp_flags(), tcp.sequence_number, tcp.acknowledgment_number)
            });
            let are_turned = views.iter().zip(sent).all(|(view, sent)| {
                let (from, to) = ends(sent);
                (view.to(), view.from()) == (from, to)
            });
            if resets[0] != resets[1] || !are_turned {
                return Err(format!("the segments in answer differ: {resets:?}"));
            }
        }
        _ => return Err("an answer of an unknown protocol".into()),
    }
    Ok(is_renamed)
}

/// Whether two ICMP errors say the same, each about the packet that its router got.
fn errors_alike(views: &Both<View>, sent: &Both<Vec<u8>>) -> Result<(), String> {
    if views[0].icmp() != views[1].icmp() {
        return Err("the ICMP errors are of different types".into());
    }
    // Weir quotes what was sent; Linux what rules have made of it, as far as they write.
    let lengths = [usize::MAX, transport(&sent[1]) + 8];
    for ((view, sent), most) in views.iter().zip(sent).zip(lengths) {
        let (mut quote, mut sent) = (view.quote().octets, sent.clone());
        for octets in [&mut quote, &mut sent] {
            settle(octets);
            clear(octets, 8..9);
        }
        let length = quote.len().min(sent.len()).min(most);
        if length < 28 || quote[..length] != sent[..length] {
            return Err("an ICMP error does not quote what was sent".into());
        }
    }
    Ok(())
}
