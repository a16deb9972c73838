//! Ports.
#![no_std]
