//! Compiles the clock that is preloaded into servers.
//!
//! Cargo has no stable way to hand a dynamic library to a dependent: `cargo test --workspace` would
//! build the package `clock`, but `cargo test --test NAME` would not. It is one file without
//! dependencies, so one call of the compiler gives it, always and wherever `testkit` itself is built.
//! That it is also a package of the workspace is for the lints and for rustfmt.

use std::{env, path::Path, process::Command};

fn main() {
    const SOURCE: &str = "clock/src/lib.rs";
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let known = matches!(&*target("ARCH"), "x86_64" | "aarch64");
    if target("OS") != "linux" || target("ENV") != "gnu" || !known {
        return;
    }

    let library = Path::new(&var("OUT_DIR")).join("libdistkit_clock.so");
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "distkit_clock", "--crate-type", "cdylib"]);
    rustc.args(["-O", "-C", "panic=abort", "-C", "strip=symbols", "--target", &var("TARGET")]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(&library).arg(SOURCE).status();
    assert!(status.is_ok_and(|status| status.success()), "compiling {SOURCE} failed");
    println!("cargo::rustc-env=DISTKIT_CLOCK_LIBRARY={}", library.display());
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
