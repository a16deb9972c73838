//! Characters to tokens.

use std::ops::Range;

use logos::{Lexer, Logos};

/// A token of the rules language.
#[derive(Logos, Debug, Clone, Copy, PartialEq, Eq)]
#[logos(skip r"[ \t]+")]
#[logos(skip r"\\\n")]
pub(crate) enum Token {
    #[token("\n")]
    Newline,
    #[regex(r"#[^\n]*", allow_greedy = true)]
    Comment,
    #[regex(r"[A-Za-z_][A-Za-z0-9_/.\-]*\*?")]
    Word,
    #[regex(r#""[^"\n]*""#)]
    Quoted,
    #[regex(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")]
    Address,
    #[regex(r"[0-9]+|0[xX][0-9A-Fa-f]+")]
    Number,
    /// An IPv6 or Ethernet address.
    #[regex(r"[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,}(\.[0-9]+)*", priority = 5)]
    Colons,
    #[regex(r"\$[A-Za-z_][A-Za-z0-9_/.\-]*")]
    Variable,
    #[regex(r"@[A-Za-z_][A-Za-z0-9_/.\-]*")]
    SetName,
    #[token("{")]
    Open,
    #[token("}")]
    Close,
    #[token("(")]
    OpenParen,
    #[token(")")]
    CloseParen,
    #[token(";")]
    Semicolon,
    #[token(",")]
    Comma,
    #[token(":")]
    Colon,
    #[token(".")]
    Dot,
    #[token("/")]
    Slash,
    #[token("-")]
    Minus,
    #[token("+")]
    Plus,
    #[token("*")]
    Star,
    #[token("&")]
    And,
    #[token("|")]
    Or,
    #[token("^")]
    Xor,
    #[token("!")]
    Not,
    #[token("=")]
    Assign,
    #[token("==")]
    Equal,
    #[token("!=")]
    NotEqual,
    #[token("<=")]
    AtMost,
    #[token(">=")]
    AtLeast,
    #[token("<")]
    Less,
    #[token(">")]
    Greater,
    /// A character that begins no token.
    Unknown,
    /// The end of the file.
    End,
}

/// A token and where it stands.
pub(crate) type Spanned = (Token, Range<usize>);

/// What a comment says to Weir, however the name is written.
pub(super) fn directive(comment: &str) -> Option<&str> {
    let text = comment.trim_start_matches(|c: char| c == '#' || c.is_whitespace());
    let (name, rest) = text.split_at_checked(4)?;
    if !name.eq_ignore_ascii_case("weir") {
        return None;
    }
    // Without its colon it is a mistake, not a comment.
    let says = |word: &&str| matches!(*word, "never" | "always" | "allow");
    match rest.trim_start().strip_prefix(':') {
        None if rest.starts_with(char::is_whitespace) => {
            rest.split_whitespace().next().filter(says).map(|_| "")
        }
        after => after,
    }
}

/// The tokens of a file and of those that it includes, comments set aside.
pub(crate) struct Tokens<'s> {
    text: &'s str,
    /// The files that are open, each with where it begins: the one that is read last.
    open: Vec<(Lexer<'s, Token>, usize)>,
    ahead: Option<Spanned>,
    /// Comments met since somebody asked.
    pub comments: Vec<Range<usize>>,
}

impl<'s> Tokens<'s> {
    /// The tokens of a part of the text, which holds all files.
    pub fn new(text: &'s str, root: Range<usize>) -> Self {
        let mut tokens = Self { text, open: Vec::new(), ahead: None, comments: Vec::new() };
        tokens.enter(root);
        tokens
    }

    /// Goes on in another file; what comes here comes behind it. No token may have been looked at ahead.
    pub fn enter(&mut self, file: Range<usize>) {
        self.ahead = None;
        self.open.push((Token::lexer(self.text.get(file.clone()).unwrap_or("")), file.start));
    }

    fn read(&mut self) -> Spanned {
        loop {
            let is_root = self.open.len() == 1;
            let Some((lexer, start)) = self.open.last_mut() else { return (Token::End, 0..0) };
            let start = *start;
            let Some(token) = lexer.next() else {
                let end = start + lexer.source().len();
                if is_root {
                    return (Token::End, end..end);
                }
                // No line ends here, as in nft: an included file has to end its last one.
                self.open.pop();
                continue;
            };
            let span = lexer.span();
            let span = start + span.start..start + span.end;
            match token.unwrap_or(Token::Unknown) {
                // Only directives are of interest; the others may be many.
                Token::Comment if directive(lexer.slice()).is_some() => self.comments.push(span),
                Token::Comment => {}
                token => return (token, span),
            }
        }
    }

    /// Reads a part of a comment from here on.
    pub fn begin(&mut self, part: Range<usize>) {
        self.open.clear();
        self.enter(part);
    }

    pub fn peek(&mut self) -> &Spanned {
        if self.ahead.is_none() {
            self.ahead = Some(self.read());
        }
        self.ahead.get_or_insert((Token::End, 0..0))
    }

    pub fn next(&mut self) -> Spanned {
        match self.ahead.take() {
            Some(token) => token,
            None => self.read(),
        }
    }
}
