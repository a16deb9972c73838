//! The words of the kernel command line. Words that nobody knows are ignored, as Linux does.

/// The command line as the loader gave it.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine(pub &'static str);

/// A virtio-mmio device, as Linux's `virtio_mmio.device=SIZE@ADDRESS:LINE[:ID]` declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioDevice {
    /// Physical address of the registers.
    pub address: u64,
    /// Octets of the registers.
    pub size: u64,
    /// Line of the I/O APIC.
    pub line: u32,
}

impl CommandLine {
    /// The value of the first word `name=value`.
    pub fn value(&self, name: &str) -> Option<&'static str> {
        self.values(name).next()
    }

    /// The values of all words `name=value`.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'static str> {
        self.0.split_ascii_whitespace().filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The value of `name=`, a number: decimal, or hexadecimal after `0x`.
    pub fn number(&self, name: &str) -> Option<u64> {
        number(self.value(name)?)
    }

    /// The virtio-mmio devices, in the order of the line.
    pub fn mmio_devices(&self) -> impl Iterator<Item = MmioDevice> {
        self.values("virtio_mmio.device").filter_map(mmio_device)
    }
}

fn mmio_device(text: &str) -> Option<MmioDevice> {
    let (size, rest) = text.split_once('@')?;
    let mut rest = rest.split(':');
    let address = number(rest.next()?)?;
    let line = u32::try_from(number(rest.next()?)?).ok()?;
    Some(MmioDevice { address, size: octets(size)?, line })
}

/// A number of octets, with `K` or `M` behind it if it counts KiB or MiB.
fn octets(text: &str) -> Option<u64> {
    for (suffix, unit) in [("K", 1 << 10), ("k", 1 << 10), ("M", 1 << 20)] {
        if let Some(count) = text.strip_suffix(suffix) {
            return number(count)?.checked_mul(unit);
        }
    }
    number(text)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
