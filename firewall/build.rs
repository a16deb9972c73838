//! What Cargo must know to make the bootable image: the site, compiled to tables, and how to link.
//! Nothing unless the `image` feature is on.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=WEIR_SITE");
    if env::var_os("CARGO_FEATURE_IMAGE").is_some() {
        let manifest = variable("CARGO_MANIFEST_DIR");
        link(&manifest);
        // A relative WEIR_SITE counts from this package: Cargo runs build scripts there.
        let site = env::var_os("WEIR_SITE").map_or_else(|| manifest.join("site"), PathBuf::from);
        compile(&site, &variable("OUT_DIR").join("site.rs"));
    }
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).map_or_else(|| fail(&format!("Cargo did not set {name}")), PathBuf::from)
}

/// The image is a freestanding executable at a fixed address, laid out by `image.ld`.
fn link(manifest: &Path) {
    let layout = manifest.join("image.ld");
    println!("cargo:rerun-if-changed={}", layout.display());
    let layout = format!("-Wl,-T{},--build-id=none,-z,max-page-size=4096", layout.display());
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", &layout] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

/// Compiles the site in `directory` to the Rust text that the image includes.
fn compile(directory: &Path, output: &Path) {
    for file in ["weir.toml", "rules.nft"] {
        println!("cargo:rerun-if-changed={}", directory.join(file).display());
    }
    let site = rules_compiler::compile(directory).unwrap_or_else(|diagnostics| {
        fail(&format!("{}\nthe site in {} has errors", diagnostics.render(false), directory.display()))
    });
    for file in site.files() {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    for warning in site.warnings().iter() {
        let message = warning.to_string().replace('\n', " ");
        println!("cargo:warning={message}");
    }
    if let Err(error) = fs::write(output, site.to_rust()) {
        fail(&format!("{}: {error}", output.display()));
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("{reason}");
    process::exit(1)
}
