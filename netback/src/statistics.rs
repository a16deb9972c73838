//! What a link counts.

/// Counters of a link since it was made; `backlog` and `free_buffers` are figures of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received and given to the datapath.
    pub rx_frames: u64,
    /// Octets of these frames, Ethernet header included.
    pub rx_octets: u64,
    /// Frames accepted for sending.
    pub tx_frames: u64,
    /// Octets of these frames, Ethernet header included.
    pub tx_octets: u64,
    /// Received frames shorter than an Ethernet header.
    pub rx_runts: u64,
    /// Received frames whose offload fields were not negotiated or point outside the frame.
    pub rx_bad_offload: u64,
    /// Received frames that are larger than a buffer and not to be segmented: larger than any link's MTU here.
    pub rx_too_long: u64,
    /// Turns that found no free buffer to offer to the device.
    pub rx_no_buffer: u64,
    /// Frames refused, or dropped later, because queue and backlog were full.
    pub tx_full: u64,
    /// Frames dropped because they waited too long in the backlog (RFC 8289).
    pub tx_late: u64,
    /// Frames refused or lost because the link was down.
    pub tx_down: u64,
    /// Frames refused as longer than the MTU allows.
    pub tx_too_long: u64,
    /// Frames refused because their description contradicts itself.
    pub tx_malformed: u64,
    /// Violations of the protocol by the device: forged identifiers, impossible lengths, lost state.
    pub device_errors: u64,
    /// Times that the device was reset and started again.
    pub restarts: u64,
    /// Frames that wait in software for room in the queue.
    pub backlog: u32,
    /// Free buffers of the pool that all ports share.
    pub free_buffers: u32,
}

impl Statistics {
    /// Counts a frame that a link did or did not take.
    pub(crate) fn sent(&mut self, result: Result<usize, crate::Refused>) -> Result<(), crate::Refused> {
        use crate::Refused;
        match result {
            Ok(octets) => {
                self.tx_frames += 1;
                self.tx_octets += octets as u64;
                return Ok(());
            }
            Err(Refused::Full) => self.tx_full += 1,
            Err(Refused::Down) => self.tx_down += 1,
            Err(Refused::TooLong) => self.tx_too_long += 1,
            Err(Refused::Malformed) => self.tx_malformed += 1,
        }
        result.map(|_| ())
    }

    /// Counts a frame that arrived.
    pub(crate) fn received(&mut self, octets: usize) {
        self.rx_frames += 1;
        self.rx_octets += octets as u64;
    }
}
