#!/bin/sh
# Weir under Cloud Hypervisor, which boots the ELF by its PVH note. Untested here.
# Build the image first: cargo run -- build -o weir.elf
# The taps have to exist.
exec cloud-hypervisor \
    --kernel "${1:-weir.elf}" \
    --cpus boot=1 \
    --memory size=32M \
    --net tap=uplink0,mac=52:54:00:00:00:01 \
          tap=work0,mac=52:54:00:00:01:01 \
          tap=lab0,mac=52:54:00:00:01:02 \
    --serial tty \
    --console off
