//! Values of a TOML table: their types, and errors at their places.

use std::net::Ipv4Addr;

use rules::site::{MTU_MAX, Prefix};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{At, Span};
use crate::diagnostics::{Diagnostics, meant, quoted};
use crate::names;
use crate::source::Source;

/// A table of the file.
pub(super) struct Section<'t> {
    pub title: String,
    pub table: &'t DeTable<'t>,
    pub span: Span,
}

pub(super) struct Reader<'a> {
    pub source: &'a Source,
    pub diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics.error(self.source, span, message);
    }

    /// Refuses keys that are not known, and those that are known but not built.
    pub(super) fn keys(&mut self, section: &Section, known: &[&str], unbuilt: &[&str]) {
        let mut keys: Vec<_> =
            section.table.iter().map(|(key, _)| (key.span(), key.get_ref().as_ref())).collect();
        keys.sort_by_key(|(span, _)| span.start);
        for (span, key) in keys {
            if known.contains(&key) {
                continue;
            }
            if unbuilt.contains(&key) {
                self.error(span, format!("{} is not available in this version", quoted(key)));
                continue;
            }
            let message = format!("unknown key {} in {}", quoted(key), section.title);
            match meant(key, known.iter().copied()) {
                Some(label) => self.diagnostics.error_with(self.source, span, message, label),
                None => self.error(span, message),
            }
        }
    }

    pub(super) fn get<'t>(&self, section: &Section<'t>, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        section.table.iter().find(|(known, _)| known.get_ref() == key).map(|(_, value)| value)
    }

    pub(super) fn wrong_type(&mut self, value: &Spanned<DeValue>, key: &str, wanted: &str) {
        let given = value.get_ref().type_str();
        self.error(value.span(), format!("{} must be {wanted}, not {given}", quoted(key)));
    }

    pub(super) fn section<'t>(&mut self, parent: &Section<'t>, key: &str) -> Option<Section<'t>> {
        let value = self.get(parent, key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(value, key, "a table");
            return None;
        };
        Some(Section { title: format!("[{key}]"), table, span: value.span() })
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections<'t>(&mut self, parent: &Section<'t>, key: &str) -> Vec<Section<'t>> {
        let Some(value) = self.get(parent, key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, &format!("a list of tables, [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section { title: format!("[[{key}]]"), table, span: item.span() })
                }
                None => self.wrong_type(item, key, &format!("a list of tables, [[{key}]]")),
            }
        }
        sections
    }

    pub(super) fn text<'t>(&mut self, section: &Section<'t>, key: &str) -> Option<At<&'t str>> {
        let value = self.get(section, key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text, span: value.span() }),
            None => {
                self.wrong_type(value, key, "a string");
                None
            }
        }
    }

    pub(super) fn texts<'t>(&mut self, section: &Section<'t>, key: &str, most: usize) -> Vec<At<&'t str>> {
        let Some(value) = self.get(section, key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of strings");
            return Vec::new();
        };
        if let Some(over) = array.get(most) {
            self.error(over.span(), format!("{} has at most {most} entries", quoted(key)));
        }
        let mut texts = Vec::new();
        for item in array.iter().take(most) {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text, span: item.span() }),
                None => self.wrong_type(item, key, "a list of strings"),
            }
        }
        texts
    }

    pub(super) fn boolean(&mut self, section: &Section, key: &str) -> Option<bool> {
        let value = self.get(section, key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(value, key, "true or false");
        }
        boolean
    }

    /// A whole number from `least` to `most`; `why` names who says so.
    pub(super) fn number(
        &mut self,
        section: &Section,
        key: &str,
        least: i64,
        most: i64,
        why: &str,
    ) -> Option<u32> {
        let value = self.get(section, key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, key, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => u32::try_from(number).ok(),
            None => {
                let message = format!("{} must be from {least} to {most}{why}", quoted(key));
                self.error(value.span(), message);
                None
            }
        }
    }

    pub(super) fn address(&mut self, text: At<&str>) -> Option<At<Ipv4Addr>> {
        match names::address(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(reason) => {
                self.error(text.span, reason);
                None
            }
        }
    }

    pub(super) fn prefix(&mut self, text: At<&str>) -> Option<At<Prefix>> {
        match names::prefix(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(reason) => {
                self.error(text.span, reason);
                None
            }
        }
    }

    pub(super) fn mac(&mut self, section: &Section) -> Option<At<[u8; 6]>> {
        let text = self.text(section, "mac")?;
        match names::mac(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(reason) => {
                self.error(text.span, reason);
                None
            }
        }
    }

    /// RFC 791 3.1: every module must forward a datagram of 68 octets.
    pub(super) fn mtu(&mut self, section: &Section) -> Option<u16> {
        let why = " octets: a packet lies in one buffer of a port";
        self.number(section, "mtu", 68, MTU_MAX.into(), why).and_then(|mtu| u16::try_from(mtu).ok())
    }
}
