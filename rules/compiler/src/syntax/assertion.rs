//! `# weir: never MATCHES` and `# weir: always MATCHES accept|drop`.

use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{Asserted, Span, What};
use crate::prove::Claim;

impl Parser<'_, '_> {
    /// Reads what stands behind `# weir:` in a comment.
    pub fn assertion(&mut self, comment: &Span, text: &str) -> Parsed<()> {
        let start = comment.end - text.len();
        self.nodes(DECLARATION, comment)?;
        self.tokens.begin(start..comment.end);
        self.braces = 0;
        let (_, first) = self.next();
        let is_never = self.text(&first) == "never";
        let is_after_nat = is_never && self.takes_word("after");
        if is_after_nat && !self.takes_word("nat") {
            return self.unexpected("\"nat\" after \"after\"");
        }
        let mut matches = Vec::new();
        let mut claim = None;
        let end = comment.end;
        loop {
            let here = self.here();
            let word = self.peek_word();
            match (self.peek(), word) {
                (Token::End | Token::Newline, _) => break,
                (_, "accept" | "drop") if !is_never => {
                    claim = Some(if word == "accept" { Claim::Accepted } else { Claim::Dropped });
                    self.next();
                    let after = self.here();
                    if self.peek() != Token::End {
                        return self.error(after, "nothing may follow the verdict of an assertion");
                    }
                    break;
                }
                _ if !self.begins_key() => return self.unexpected("a match"),
                _ => {}
            }
            let statement = self.statement_at()?;
            if !matches!(statement.what, What::Match(_) | What::Concatenation(_)) {
                return self.error(here, "an assertion is made of matches");
            }
            matches.push(statement);
        }
        let claim = match claim {
            _ if is_never => Claim::Never,
            Some(claim) => claim,
            None => return self.error(end..end, "\"always\" ends with \"accept\" or \"drop\""),
        };
        let span = start + (text.len() - text.trim_start().len())..end;
        self.ruleset.assertions.push(Asserted { span, claim, is_after_nat, matches });
        Ok(())
    }
}
