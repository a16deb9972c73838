//! Assertions: their matches as steps, and their proofs.

use rules::table::Field;

use super::{Context, Lowering, Premises};
use crate::program::Step;
use crate::prove::{self, Assertion};
use crate::syntax::tree::{Asserted, Family, Ruleset, What};

impl Lowering<'_> {
    /// Proves what the file says of its packets; what does not hold is told.
    pub(super) fn assertions(&mut self, ruleset: &Ruleset) {
        let mut read = Vec::new();
        for asserted in &ruleset.assertions {
            if let Some(steps) = self.meant(asserted) {
                let Asserted { span, claim, is_after_nat, .. } = asserted;
                read.push(Assertion { span: span.clone(), what: *claim, is_after_nat: *is_after_nat, steps });
            }
        }
        // With errors, the policy is not what it should be.
        if self.diagnostics.errors() == 0 && ruleset.is_whole && self.plan.is_sound {
            prove::assertions(&read, &self.program, self.plan, self.source, self.diagnostics);
        }
    }

    /// The steps of its matches.
    fn meant(&mut self, asserted: &Asserted) -> Option<Vec<Step>> {
        // It stands in no table, and so sees the sets of none.
        self.table = usize::MAX;
        let context =
            Context { family: Family::Inet, reached: 0, is_early: false, is_late: true, table: usize::MAX };
        let mut premises = Premises::default();
        for statement in &asserted.matches {
            match &statement.what {
                What::Match(wanted) => self.comparison(wanted, &context, &mut premises)?,
                What::Concatenation(wanted) => self.concatenation(wanted, &context, &mut premises)?,
                _ => return None,
            }
            if premises.is_never {
                return self.refuse(statement.span.clone(), "no IPv4 packet is meant by this");
            }
            let joins_output = |step: &Step| matches!(step, Step::Lookup(wanted) if wanted.key.fields().contains(&Field::OutputPort));
            if premises.steps.iter().any(joins_output) {
                let message =
                    "oifname is asked at the end of the way, the rest at its begin: write them apart";
                return self.refuse(statement.span.clone(), message);
            }
            if premises.steps.iter().any(asks_for_state) {
                let message = "an assertion is about first packets, not about marks, states or connections";
                return self.refuse(statement.span.clone(), message);
            }
        }
        if asserted.matches.is_empty() {
            return self.refuse(asserted.span.clone(), "say which packets are meant");
        }
        Some(premises.steps)
    }
}

/// Whether a step asks for more than the packet itself.
fn asks_for_state(step: &Step) -> bool {
    let is_of_packet = |field: &Field| {
        matches!(
            field,
            Field::InputPort
                | Field::OutputPort
                | Field::Source
                | Field::Destination
                | Field::Protocol
                | Field::SourcePort
                | Field::DestinationPort
                | Field::IcmpType
                | Field::IcmpCode
                | Field::TcpFlags
                | Field::Dscp
                | Field::Ecn
                | Field::Ttl
                | Field::Length
                | Field::Identification
                | Field::SourceStation
                | Field::SourceStationRest
                | Field::DestinationStation
                | Field::DestinationStationRest
        )
    };
    match step {
        Step::Match(wanted) => !is_of_packet(&wanted.field),
        Step::Lookup(wanted) => !wanted.key.fields().iter().all(is_of_packet),
        _ => true,
    }
}
