//! Statements that remember: counters, limits, quotas, log lines, and the objects that rules share.

use rules::object::{Level, Limit, Quota, SECOND};

use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{Log, Object, Shared, Span, What};
use crate::diagnostics::{meant, quoted};
use crate::names;

/// The packets that a limit lets through at once when its burst is not said, as nft has it.
const BURST: u32 = 5;

/// The longest prefix of a log line, in octets, as nft has it.
const PREFIX_MAX: usize = 127;

/// Units of octets.
const UNITS: [(&str, u64); 3] = [("bytes", 1), ("kbytes", 1 << 10), ("mbytes", 1 << 20)];

/// Units of time in seconds.
const TIMES: [(&str, u64); 5] =
    [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 604_800)];

impl Parser<'_, '_> {
    /// `counter`, `counter packets N bytes N`, `counter name N`
    pub fn counter(&mut self) -> Parsed<What> {
        self.next();
        if let Some(name) = self.object_name()? {
            return Ok(What::Named("counter", name));
        }
        if self.peek_word() == "packets" {
            self.counted()?;
        }
        Ok(What::Counter)
    }

    /// `packets N bytes N`
    pub fn counted(&mut self) -> Parsed<()> {
        for word in ["packets", "bytes"] {
            if !self.takes_word(word) {
                return self.unexpected(&format!("\"{word}\""));
            }
            if !self.takes(Token::Number) {
                return self.unexpected("a number");
            }
        }
        Ok(())
    }

    /// `limit rate ...`, `limit name N`
    pub fn limit(&mut self) -> Parsed<What> {
        self.next();
        if let Some(name) = self.object_name()? {
            return Ok(What::Named("limit", name));
        }
        self.rate().map(What::Limit)
    }

    /// `quota [over|until] N unit [used N unit]`, `quota name N`
    pub fn quota(&mut self) -> Parsed<What> {
        self.next();
        if let Some(name) = self.object_name()? {
            return Ok(What::Named("quota", name));
        }
        self.amount().map(What::Quota)
    }

    /// `name N`, when an object is meant.
    fn object_name(&mut self) -> Parsed<Option<Span>> {
        let is_quoted = self.peek() == Token::Quoted;
        if !is_quoted && !self.takes_word("name") {
            return Ok(None);
        }
        let span = self.here();
        if !matches!(self.peek(), Token::Quoted | Token::Word) {
            return self.unexpected("the name of an object of this table");
        }
        self.next();
        Ok(Some(span))
    }

    /// `rate [over] N/unit [burst N packets]`, `rate [over] N kbytes/unit [burst N kbytes]`
    pub fn rate(&mut self) -> Parsed<Limit> {
        if !self.takes_word("rate") {
            return self.unexpected("\"rate\"");
        }
        let is_over = self.takes_word("over");
        let span = self.here();
        let mut rate = self.whole_number()?;
        let unit_span = self.here();
        let (octets, time) = match self.peek_word().split_once('/') {
            Some((octets, time)) => {
                self.next();
                (octets, time)
            }
            None if self.takes(Token::Slash) => {
                let word = self.peek_word();
                self.next();
                ("", word)
            }
            None => return self.unexpected("\"/\" and a unit of time, such as \"/second\""),
        };
        let is_octets = !octets.is_empty();
        if is_octets {
            rate = rate.saturating_mul(self.octets(octets, &unit_span)?);
        }
        let Some(&(_, seconds)) = TIMES.iter().find(|(name, _)| *name == time) else {
            let label = meant(time, TIMES.iter().map(|&(name, _)| name));
            return self.error_with(unit_span, format!("{} is no unit of time", quoted(time)), label);
        };
        if rate == 0 {
            return self.error(span, "a rate of 0 lets nothing through");
        }
        let burst = self.burst(is_octets)?;
        let unit = seconds * SECOND;
        // The kernel counts in 64 bits, as nanoseconds.
        if is_octets && unit.checked_mul(rate.saturating_add(burst.into())).is_none() {
            return self.error(span, "the kernel cannot count so many octets in such a time");
        }
        if !is_octets && (unit / rate).checked_mul(burst.into()).is_none() {
            return self.error(span, "the kernel cannot count so many packets at once at such a rate");
        }
        Ok(Limit { rate, unit, burst, is_octets, is_over })
    }

    fn burst(&mut self, is_octets: bool) -> Parsed<u32> {
        if !self.takes_word("burst") {
            return Ok(if is_octets { 0 } else { BURST });
        }
        let span = self.here();
        let mut burst = self.whole_number()?;
        if is_octets {
            let here = self.here();
            let word = self.peek_word();
            burst = burst.saturating_mul(self.octets(word, &here)?);
            self.next();
        } else if !self.takes_word("packets") {
            return self.unexpected("\"packets\" behind the burst");
        } else if burst == 0 {
            return self.error(span, "a burst of packets is at least 1");
        }
        match u32::try_from(burst) {
            Ok(burst) => Ok(burst),
            Err(_) => self.error(span, "a burst is less than 4 GiB"),
        }
    }

    /// `[over|until] N unit [used N unit]`
    fn amount(&mut self) -> Parsed<Quota> {
        let is_over = self.takes_word("over");
        if !is_over {
            self.takes_word("until");
        }
        let octets = self.octet_number()?;
        let here = self.here();
        let used = if self.takes_word("used") { self.octet_number()? } else { 0 };
        if used > octets {
            return self.error(here, "more is used than the quota has");
        }
        Ok(Quota { octets, used, is_over })
    }

    /// `N unit`
    fn octet_number(&mut self) -> Parsed<u64> {
        let number = self.whole_number()?;
        let here = self.here();
        let word = self.peek_word();
        let unit = self.octets(word, &here)?;
        self.next();
        Ok(number.saturating_mul(unit))
    }

    fn octets(&mut self, unit: &str, span: &Span) -> Parsed<u64> {
        match UNITS.iter().find(|(name, _)| *name == unit) {
            Some(&(_, octets)) => Ok(octets),
            None if unit.is_empty() => self.unexpected("\"bytes\", \"kbytes\" or \"mbytes\""),
            None => {
                let label = meant(unit, UNITS.iter().map(|&(name, _)| name));
                self.error_with(span.clone(), format!("{} is no unit of octets", quoted(unit)), label)
            }
        }
    }

    pub fn whole_number(&mut self) -> Parsed<u64> {
        let span = self.here();
        if self.peek() != Token::Number {
            return self.unexpected("a number");
        }
        self.next();
        match names::decimal(self.text(&span)) {
            Some(number) => Ok(number.into()),
            None => self.error(span, "a decimal number below 2^32 is wanted here"),
        }
    }

    /// `1h30m`, in milliseconds.
    pub fn duration(&mut self) -> Parsed<u64> {
        let start = self.here();
        if self.peek() != Token::Number {
            return self.unexpected("a time, such as \"30s\" or \"1h30m\"");
        }
        let (_, mut span) = self.next();
        while matches!(self.peek(), Token::Word | Token::Number) && self.here().start == span.end {
            span.end = self.here().end;
            self.next();
        }
        match milliseconds(self.text(&span)) {
            Some(time) if (1..=MILLISECONDS_MAX).contains(&time) => Ok(time),
            _ => self
                .error(start.start..span.end, "a time is written like \"30s\", \"5m\", \"1h30m\" or \"2d\""),
        }
    }

    /// `log [prefix "..."] [level L] [flags F]`
    pub fn log(&mut self) -> Parsed<What> {
        self.next();
        let mut log = Log { prefix: String::new(), level: Level::Warning, flags: None, group: None };
        let mut names_level = false;
        loop {
            let here = self.here();
            match self.peek_word() {
                "prefix" => {
                    self.next();
                    log.prefix = self.log_prefix()?;
                }
                "level" => {
                    self.next();
                    if self.takes_word("audit") {
                        // Nothing else may be said of it.
                        if !log.prefix.is_empty() || self.peek_word() == "prefix" {
                            return self.error(here, "log level audit has no prefix");
                        }
                        if log.group.is_some() || log.flags.is_some() || names_level {
                            return self.error(here, "log level audit stands alone");
                        }
                        (log.level, log.group) = (Level::Info, Some(here));
                        return Ok(What::Log(log));
                    }
                    log.level = self.log_level()?;
                    names_level = true;
                }
                "flags" => {
                    self.next();
                    self.log_flags()?;
                    log.flags = Some(here);
                }
                "group" => {
                    self.next();
                    let number = self.here();
                    if self.whole_number()? > u16::MAX.into() {
                        return self.error(number, "a log group is 0 to 65535");
                    }
                    log.group = Some(here);
                }
                "snaplen" | "queue-threshold" => {
                    self.next();
                    self.whole_number()?;
                    log.group = Some(here);
                }
                _ => break,
            }
        }
        match (&log.group, &log.flags) {
            (Some(group), _) if names_level => {
                self.error(group.clone(), "log: a level and a group exclude each other")
            }
            (Some(group), Some(_)) => self.error(group.clone(), "log: flags and a group exclude each other"),
            _ => Ok(What::Log(log)),
        }
    }

    fn log_prefix(&mut self) -> Parsed<String> {
        let span = self.here();
        if !matches!(self.peek(), Token::Quoted | Token::Word) {
            return self.unexpected("a prefix in quotes");
        }
        self.next();
        let text = self.text(&span).trim_matches('"');
        if text.len() > PREFIX_MAX {
            return self.error(span, format!("a prefix has at most {PREFIX_MAX} octets"));
        }
        if text.contains(char::is_control) || text.contains('$') {
            return self.error(span, "a prefix has neither variables nor control characters");
        }
        Ok(text.to_owned())
    }

    fn log_level(&mut self) -> Parsed<Level> {
        let span = self.here();
        let level = match self.text(&span).trim_matches('"') {
            "emerg" | "alert" | "crit" | "err" => Level::Error,
            "warn" => Level::Warning,
            "notice" | "info" => Level::Info,
            "debug" => Level::Debug,
            word => {
                let label = meant(word, ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"]);
                return self.error_with(span, format!("{} is no log level", quoted(word)), label);
            }
        };
        self.next();
        Ok(level)
    }

    /// What the kernel's line may tell besides.
    fn log_flags(&mut self) -> Parsed<()> {
        match self.peek_word() {
            "ip" => {
                self.next();
                if self.takes_word("options") { Ok(()) } else { self.unexpected("\"options\"") }
            }
            "tcp" => {
                self.next();
                if self.takes_word("options") {
                    return Ok(());
                }
                if !self.takes_word("sequence") {
                    return self.unexpected("\"sequence\" or \"options\"");
                }
                if self.takes(Token::Comma) && !self.takes_word("options") {
                    return self.unexpected("\"options\"");
                }
                Ok(())
            }
            "skuid" | "ether" | "all" => {
                self.next();
                Ok(())
            }
            _ => self.unexpected("\"tcp\", \"ip\", \"skuid\", \"ether\" or \"all\""),
        }
    }

    /// `counter|limit|quota NAME { ... }`, in a table.
    pub fn object(&mut self, table: usize) -> Parsed<()> {
        let (_, first) = self.next();
        let kind = self.text(&first);
        let (name, span) = self.name(kind)?;
        self.nodes(DECLARATION, &span)?;
        let objects = self.ruleset.tables.get(table).map_or(&[][..], |table| table.objects.as_slice());
        if objects.iter().any(|object| object.name == name && object.what.kind() == kind) {
            return self.error(span, format!("there is a {kind} {} already", quoted(&name)));
        }
        let before = self.diagnostics.errors();
        let block = self.block;
        let mut what = (kind == "counter").then_some(Shared::Counter);
        if self.peek() == Token::Open {
            self.block(|parser| parser.object_item(kind, &mut what))?;
        } else {
            return self.unexpected("\"{\"");
        }
        match (what, self.ruleset.tables.get_mut(table)) {
            (Some(what), Some(table)) => table.objects.push(Object { name, span, block, what }),
            (None, _) if self.diagnostics.errors() == before => {
                let lacks = if kind == "limit" { "rate" } else { "octets" };
                // The statement is read to its end: what follows is not to be skipped.
                let _ = self.error::<()>(span, format!("the {kind} has no {lacks}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn object_item(&mut self, kind: &str, what: &mut Option<Shared>) -> Parsed<()> {
        match (self.peek_word(), kind) {
            ("comment", _) => {
                self.next();
                self.comment(&[])?;
            }
            ("packets", "counter") => self.counted()?,
            (_, "limit") => *what = Some(Shared::Limit(self.rate()?)),
            (_, "quota") => *what = Some(Shared::Quota(self.amount()?)),
            _ => return self.unexpected("\"packets\" or \"comment\""),
        }
        // One line may hold it all.
        if self.peek() == Token::Close { Ok(()) } else { self.end_of_statement() }
    }
}

/// A year: what is longer was not meant.
const MILLISECONDS_MAX: u64 = 366 * 86_400_000;

/// The time that a text like `1h30m` names.
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0u64;
    // Each unit once, the greater first.
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if unit >= last {
            return None;
        }
        last = unit;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_as_nft_writes_them() {
        assert_eq!(milliseconds("30s"), Some(30_000));
        assert_eq!(milliseconds("1h30m"), Some(5_400_000));
        assert_eq!(milliseconds("2d3h4m5s6ms"), Some(183_845_006));
        for wrong in ["30m1h", "1s1s", "30", "s", "5x", "1h30", "99999999999999999999d"] {
            assert_eq!(milliseconds(wrong), None, "{wrong}");
        }
    }
}
