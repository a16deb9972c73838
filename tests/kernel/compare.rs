//! One file of rules in both: what is wrong with it, if anything, and in how few of its lines.

use std::fmt;
use std::path::Path;

use qemu::scratch::Scratch;
use rules::site::Site;
use tests::Chance;

use crate::duel::{Duel, Tally};
use crate::router;

/// What a site says so that no connection ends before its time: the clock of the appliance is moved on for the rates of
/// its answers.
const TIMEOUTS: &str = "
[nat]
sessions = 4096
[nat.timeout]
udp = 1000000
tcp_established = 1000000
tcp_transitory = 1000000
icmp = 1000000
other = 1000000
";

/// Why a file cannot be compared, or does not mean the same.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Weir does not compile it.
    Refused(String),
    /// Weir compiles it, and nft does not load it.
    Unloaded(String),
    /// Its chains see what Linux sends and Weir, on purpose, does not: it is not fit for a comparison.
    Unfit,
    /// They differ.
    Differs(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "Weir refuses it: {why}"),
            Self::Unloaded(why) => write!(f, "nft refuses it: {why}"),
            Self::Unfit => write!(f, "the file asks about answers that only Linux gives"),
            Self::Differs(why) => write!(f, "{why}"),
        }
    }
}

/// A comparison to make.
#[derive(Clone)]
pub struct Case {
    /// `weir.toml`, up to its timeouts.
    pub plan: &'static str,
    /// `rules.nft`.
    pub rules: String,
    /// The packets.
    pub seed: u64,
    /// How many.
    pub packets: usize,
}

impl Case {
    /// Sends packets to Weir and to the kernel, which both have these rules.
    ///
    /// # Errors
    /// What Weir or nft says against them, or the first difference.
    pub fn compare(&self) -> Result<Tally, Trouble> {
        self.compare_with(&self.rules)
    }

    /// As [`Case::compare`], with other rules for the kernel.
    pub fn compare_with(&self, theirs: &str) -> Result<Tally, Trouble> {
        let scratch = Scratch::new().unwrap_or_else(|error| panic!("{error}"));
        let write = |name: &str, text: &str| {
            std::fs::write(scratch.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
        };
        write("weir.toml", &format!("{}{TIMEOUTS}", self.plan));
        write("rules.nft", &self.rules);
        let compiled = rules_compiler::compile(scratch.path());
        let compiled = compiled.map_err(|told| Trouble::Refused(told.render(false)))?;
        write("rules.nft", theirs);
        router::inside(|| self.play(compiled.leak(), scratch.path()))
    }

    fn play(&self, site: &'static Site, directory: &Path) -> Result<Tally, Trouble> {
        let duel = Duel::new(site, directory, &self.rules, Chance::new(self.seed));
        let mut duel = duel.map_err(Trouble::Unloaded)?;
        let mut steps = (0..self.packets).map(|_| duel.step());
        let ended = steps.find(Result::is_err).unwrap_or(Ok(())).and_then(|()| duel.compare_counters());
        match (ended, duel.is_unfit) {
            (_, true) => Err(Trouble::Unfit),
            (Err(why), false) => Err(Trouble::Differs(why)),
            (Ok(()), false) => Ok(duel.tally),
        }
    }

    /// The same difference with as few lines as are found by leaving out some, seen with the packet that makes it.
    pub fn shrunk(mut self) -> Self {
        let mut size = self.rules.lines().count() / 2;
        while size > 0 {
            let mut at = 0;
            while at < self.rules.lines().count() {
                let lines: Vec<&str> = self.rules.lines().collect();
                let after = lines.get(at + size..).unwrap_or_default();
                let smaller =
                    Self { rules: [&lines[..at], after].concat().join("\n") + "\n", ..self.clone() };
                match smaller.compare() {
                    Err(Trouble::Differs(_)) => self = smaller,
                    _ => at += size,
                }
            }
            size /= 2;
        }
        let (mut alike, mut differ) = (0, self.packets);
        while alike + 1 < differ {
            let packets = alike.midpoint(differ);
            match (Self { packets, ..self.clone() }).compare() {
                Err(_) => differ = packets,
                Ok(_) => alike = packets,
            }
        }
        Self { packets: differ, ..self }
    }
}
