//! Tells the program which revision it was built from, and by which compiler.

use std::process::Command;

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-env-changed=FLUME_RS_REVISION");
    let revision = std::env::var("FLUME_RS_REVISION").ok().or_else(|| first_line("git", &["rev-parse", "HEAD"]));
    println!("cargo::rustc-env=FLUME_RS_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| first_line(&rustc, &["--version"]));
    println!("cargo::rustc-env=FLUME_RS_COMPILER={}", compiler.as_deref().unwrap_or("an unknown rustc"));
}
