//! What the appliance itself speaks, besides ARP and ICMP.

pub mod console;
