//! Sets of packets as boxes: for each number of a packet the values that it may have.

use std::rc::Rc;

use rules::table::Field;

use crate::lower::{Ranges, Shared, complement, intersection, normalise};
use crate::program::Test;

/// The numbers of a packet as it comes in.
const FIELDS: [Field; 18] = [
    Field::InputPort,
    Field::Source,
    Field::Destination,
    Field::Protocol,
    Field::SourcePort,
    Field::DestinationPort,
    Field::IcmpType,
    Field::IcmpCode,
    Field::TcpFlags,
    Field::Dscp,
    Field::Ecn,
    Field::Ttl,
    Field::Length,
    Field::Identification,
    Field::SourceStation,
    Field::SourceStationRest,
    Field::DestinationStation,
    Field::DestinationStationRest,
];

/// Fields with this many values at most may be looked at bit by bit.
const ENUMERATED_MAX: u64 = 1 << 16;

/// Packets: for each field its values, `None` for a field that they have not. Copies share them.
#[derive(Debug, Clone)]
pub(super) struct Space(Rc<[Option<Shared>; FIELDS.len()]>);

fn place(field: Field) -> Option<usize> {
    FIELDS.iter().position(|&own| own == field)
}

impl Space {
    /// Packets that have the fields which every packet has, with all their values.
    pub fn all() -> Self {
        let values = FIELDS.map(|field| {
            let max = match field {
                Field::Source
                | Field::Destination
                | Field::SourceStationRest
                | Field::DestinationStationRest => u32::MAX,
                Field::Length | Field::Identification | Field::SourceStation | Field::DestinationStation => {
                    65_535
                }
                Field::InputPort | Field::Protocol | Field::Ttl => 255,
                Field::Dscp => 63,
                Field::Ecn => 3,
                _ => return None,
            };
            Some(Shared::from([(0, max)]))
        });
        Self(Rc::new(values))
    }

    /// The values of a field; none when it is not there.
    pub fn values(&self, field: Field) -> Option<&Shared> {
        self.0.get(place(field)?)?.as_ref()
    }

    /// The same packets with other values of a field; none when there are no values.
    pub fn with(&self, field: Field, values: impl Into<Shared>) -> Option<Self> {
        let values = values.into();
        if values.is_empty() {
            return None;
        }
        let mut space = self.clone();
        *Rc::make_mut(&mut space.0).get_mut(place(field)?)? = Some(values);
        Some(space)
    }

    /// The packets that are in both; none when there are none.
    pub fn within(&self, field: Field, values: &[(u32, u32)]) -> Option<Self> {
        let own = self.values(field)?;
        self.with(field, intersection(own, values))
    }
}

/// The values among these that pass a test; `None` when they are too many to be looked at bit by bit.
pub(super) fn passing(test: &Test, values: &[(u32, u32)]) -> Option<Ranges> {
    Some(match test {
        Test::Equal(value) => intersection(values, &[(*value, *value)]),
        Test::Range(first, last) => intersection(values, &[(*first, *last)]),
        Test::In(ranges) => intersection(values, ranges),
        Test::Masked { mask, value } if mask.leading_ones() + mask.trailing_zeros() == 32 => {
            intersection(values, &[(*value, *value | !*mask)])
        }
        Test::Masked { mask, value } => {
            let count: u64 = values.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
            if count > ENUMERATED_MAX {
                return None;
            }
            let each = values.iter().flat_map(|&(first, last)| first..=last);
            normalise(each.filter(|number| number & mask == *value).map(|number| (number, number)).collect())
                .0
        }
    })
}

/// The values that are not among the others.
pub(super) fn without(values: &[(u32, u32)], others: &[(u32, u32)]) -> Ranges {
    intersection(values, &complement(others, u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_leading_bits_is_a_range_and_any_other_is_looked_at() {
        let all = [(0, u32::MAX)];
        let prefix = Test::Masked { mask: 0xffff_0000, value: 0x0a00_0000 };
        assert_eq!(passing(&prefix, &all), Some(vec![(0x0a00_0000, 0x0a00_ffff)]));
        let odd = Test::Masked { mask: 1, value: 1 };
        assert_eq!(passing(&odd, &all), None);
        assert_eq!(passing(&odd, &[(0, 4)]), Some(vec![(1, 1), (3, 3)]));
        assert_eq!(without(&[(0, 9)], &[(3, 3), (8, 20)]), vec![(0, 2), (4, 7)]);
    }
}
