//! The real peers, which run on Java: `tests/interop` starts them.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Launch, eventually, peer};

/// How many tests may run Java programs at once: each of these takes as much processor as it can get to start.
const TURNS: usize = 2;

/// Password of all key stores.
const PASSWORD: &str = "changeit";

static FREE: Mutex<usize> = Mutex::new(TURNS);
static FREED: Condvar = Condvar::new();

/// The right to run Java programs, until it is dropped.
pub struct Turn(());

impl Turn {
    fn wait() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREED.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

/// Fetches the jars of these peers, which no deadline of a test should judge, and waits for a turn to run them.
/// Nothing when there is no Java; the test is skipped then.
pub fn java_peers(jars: &[&str]) -> Option<Turn> {
    if !["bash", "java", "javac", "mvn", "unzip"].iter().all(|program| peer(program)) {
        return None;
    }
    let fetched = Command::new(interop("fetch.sh")).args(jars).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(fetched.expect("the script starts").success(), "the jars of {jars:?} could not be fetched");
    Some(Turn::wait())
}

/// A file of the kit.
pub fn interop(script: &str) -> PathBuf {
    // It is the agent's; other packages are folders beside it.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kit = package.ancestors().map(|folder| folder.join("tests/interop")).find(|kit| kit.is_dir());
    kit.expect("the kit is in the repository").join(script)
}

/// A script of the kit that becomes a Java program, which starts fast rather than runs fast.
pub fn java(script: &str) -> Launch {
    Launch::of(interop(script)).env("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
}

/// A real Flume's agent `a1`.
pub fn real_flume(version: &str) -> Launch {
    java("flume.sh").env("FLUME_VERSION", version).args([
        "agent",
        "-n",
        "a1",
        "-Dflume.root.logger=INFO,console",
        "--no-reload-conf",
        "-Xmx128m",
        // Its log would replace what its charset lacks.
        "-Dfile.encoding=UTF-8",
    ])
}

/// A free port below those that the kernel gives to clients, where a probe could connect to itself. No two calls give
/// the same one.
pub fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    (0..12_000)
        .map(|_| std::process::id() as usize * 100 + NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|number| 20_000 + (number % 12_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port below 32768 is free")
}

/// Waits until somebody listens on a port.
pub fn wait_for_port(port: u16) {
    let open = eventually(|| TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(open.is_some(), "nobody listens on port {port}");
}

/// Makes `key.jks` and `key.p12` with a key, and `trust.jks` and `trust.p12` with its certificate, which names another
/// host: Flume does not look at the name.
pub fn make_key_stores(directory: &Path) {
    let key = "-genkeypair -keyalg RSA -dname CN=flume.example -validity 2 -keystore key.jks -storetype JKS";
    let copy = "-importkeystore -srckeystore key.jks -srcstorepass changeit -destkeystore key.p12 -deststoretype PKCS12 \
                -deststorepass changeit";
    let export = "-exportcert -keystore key.jks -file cert.der";
    let trust = |kind: &str, name: &str| format!("-importcert -file cert.der -keystore {name} -storetype {kind}");
    for arguments in [key, copy, export, &trust("JKS", "trust.jks"), &trust("PKCS12", "trust.p12")] {
        let mut command = Command::new("keytool");
        command.current_dir(directory).stdin(Stdio::null()).args(arguments.split_whitespace()).arg("-noprompt");
        if !arguments.starts_with("-importkeystore") {
            command.args(["-alias", "flume", "-storepass", PASSWORD, "-keypass", PASSWORD]);
        }
        let output = command.output().expect("keytool comes with Java");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
