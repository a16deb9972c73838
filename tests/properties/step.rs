//! Anything that may happen.

use proptest::collection::vec;
use proptest::prelude::*;

/// Something that happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub enum Step {
    /// A client sends to a server, or to another client.
    Out { client: u8, host: u8, port: u8, server: u8, protocol: u8, seed: u64 },
    /// A client goes on with what it once sent.
    Again { flow: u16, seed: u64 },
    /// Who was sent something answers, or sends on.
    In { flow: u16, seed: u64 },
    /// The same in two fragments, the last one first.
    Pieces { flow: u16, inbound: bool, seed: u64 },
    /// An ICMP error about the last packet of a flow.
    Error { flow: u16, code: u8, cut: u8 },
    /// Somebody outside sends to an external endpoint.
    Stranger { flow: u16, port: u8 },
    /// A client sends to the external endpoint of a flow.
    Hairpin { flow: u16, client: u8, host: u8, port: u8 },
    /// Octets that are hardly a packet.
    Garbage { port: u8, octets: Vec<u8> },
    /// Seconds pass.
    Pass { seconds: u16 },
}

impl Step {
    /// Any of them.
    pub fn any() -> impl Strategy<Value = Self> {
        let out = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u64>());
        prop_oneof![
            8 => out.prop_map(|(client, host, port, server, protocol, seed)| {
                Self::Out { client, host, port, server, protocol, seed }
            }),
            8 => any::<(u16, u64)>().prop_map(|(flow, seed)| Self::Again { flow, seed }),
            8 => any::<(u16, u64)>().prop_map(|(flow, seed)| Self::In { flow, seed }),
            2 => any::<(u16, bool, u64)>()
                .prop_map(|(flow, inbound, seed)| Self::Pieces { flow, inbound, seed }),
            2 => any::<(u16, u8, u8)>().prop_map(|(flow, code, cut)| Self::Error { flow, code, cut }),
            2 => any::<(u16, u8)>().prop_map(|(flow, port)| Self::Stranger { flow, port }),
            2 => any::<(u16, u8, u8, u8)>()
                .prop_map(|(flow, client, host, port)| Self::Hairpin { flow, client, host, port }),
            1 => (any::<u8>(), vec(any::<u8>(), 0..120))
                .prop_map(|(port, octets)| Self::Garbage { port, octets }),
            2 => prop_oneof![1u16..5, 50..70u16, 110..130u16, 230..310u16, 7000..8000u16]
                .prop_map(|seconds| Self::Pass { seconds }),
        ]
    }
}
