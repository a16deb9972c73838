//! The launcher, as a library for the tests.
#![forbid(unsafe_code)]
