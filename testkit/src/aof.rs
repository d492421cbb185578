//! An append-only file as a killed server leaves it.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::Flavor;

/// Takes off what the kill tore.
///
/// Redis 7.0 and Valkey 8 do that themselves when they start, but where it is a transaction they take off only its
/// last command: its beginning stays in the file, and joins the next transaction at the start after that.
pub(crate) fn mend(flavor: Flavor, dir: &Path) {
    let manifest = dir.join("appendonlydir").join("appendonly.aof.manifest");
    if !manifest.exists() {
        return;
    }
    let program = flavor.check_aof();
    let mut child = Command::new(program)
        .arg("--fix")
        .arg(manifest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}", flavor.explain(program, &error)));
    if let Some(mut stdin) = child.stdin.take() {
        // It asks only where there is something to mend, and may have ended by now.
        let _ = stdin.write_all(b"y\n");
    }
    let output = child.wait_with_output().expect("a child to wait for");
    let (printed, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {printed}{error}");
    if printed.contains("truncated") {
        println!("{program} took off what a kill had torn");
    }
}
