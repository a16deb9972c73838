//! `rules.nft` as text: from characters to a tree. What the tree means is the business of `lower`.
//!
//! Every error is told and the parser goes on behind it: at the next line, `;` or `}`.

mod assertion;
mod base;
mod dynamic;
pub(crate) mod keys;
pub(crate) mod lexer;
mod map;
mod parser;
mod rule;
mod set;
mod stateful;
mod translation;
pub(crate) mod tree;
mod value;
mod words;

pub(crate) use parser::parse;
