//! The compiler of a site.
#![forbid(unsafe_code)]
