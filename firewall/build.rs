//! What Cargo must know to make the bootable image; nothing unless the `image` feature is on.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_IMAGE").is_some() {
        link();
    }
}

/// The image is a freestanding executable at a fixed address, laid out by `image.ld`.
fn link() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed={manifest}/image.ld");
    let layout = format!("-Wl,-T{manifest}/image.ld,--build-id=none,-z,max-page-size=4096");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", &layout] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
