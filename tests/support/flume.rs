//! The real Apache Flume, run by `tests/interop`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Launch, peer};

/// A script of the interoperability kit.
pub fn interop(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script)
}

/// A free port below those that the kernel gives to clients, where a probe could connect to itself. Tests that run at
/// the same time look from different offsets on.
pub fn free_port(offset: usize) -> u16 {
    let start = std::process::id() as usize + offset;
    (0..12_000)
        .map(|step| 20_000 + ((start + step) % 12_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port below 32768 is free")
}

/// An agent `a1` of Flume 1.11; nothing where it cannot run.
pub fn real_flume() -> Option<Launch> {
    if !(peer("java") && peer("mvn") && peer("bash")) {
        return None;
    }
    // The first use fetches some hundred jars, which no deadline of a test should judge.
    let fetched = Command::new(interop("flume.sh")).arg("classpath").stdout(Stdio::null()).status();
    assert!(fetched.expect("the script starts").success(), "Flume's jars could not be fetched");
    let launch = Launch::of(interop("flume.sh"))
        .args(["agent", "-n", "a1", "-Dflume.root.logger=INFO,console", "--no-reload-conf"])
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"]);
    Some(launch)
}
