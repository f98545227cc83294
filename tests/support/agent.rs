//! An agent as a process.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, PROGRAM, Reply, directory, http, message};

/// How long an agent that a test leaves behind may take to end before it is killed.
const LAST_CHANCE: Duration = Duration::from_secs(3);

/// A command line for an agent.
pub struct Launch {
    command: Command,
}

impl Launch {
    /// An agent `a1` that logs to the console, has its counters on a port, and does not look for changes.
    pub fn new() -> Self {
        Self::bare().args(["agent", "--name", "a1"]).args([
            "-Dflume.root.logger=INFO,console",
            "-Dflume.monitoring.type=http",
            "-Dflume.monitoring.port=0",
        ])
    }

    /// The program without any arguments.
    pub fn bare() -> Self {
        Self::of(PROGRAM)
    }

    /// Another program: an agent, or one of its peers.
    pub fn of(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program) }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts it with a configuration of this text.
    pub fn config(self, text: &str) -> TestAgent {
        let home = directory();
        let path = super::write(home.path(), "agent.conf", text);
        self.args([OsStr::new("--conf-file"), path.as_os_str()]).start_in(home, path)
    }

    /// Starts it with what the arguments say.
    pub fn start(self) -> TestAgent {
        let home = directory();
        let path = home.path().join("agent.conf");
        self.start_in(home, path)
    }

    fn start_in(mut self, home: TempDir, path: PathBuf) -> TestAgent {
        let command = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent's program starts");
        let log = Arc::new(Log::default());
        let out = child.stdout.take().expect("the output is piped");
        let err = child.stderr.take().expect("the output is piped");
        // Whoever inherits the agent's output may keep it open; these threads end with it and hold nobody up.
        Log::follow(&log, out);
        Log::follow(&log, err);
        TestAgent { child, log, home, config: path }
    }
}

/// What an agent has printed so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(log: &Arc<Self>, output: impl Read + Send + 'static) {
        let log = Arc::clone(log);
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                log.lines().push(text);
                log.grown.notify_all();
                line.clear();
            }
        });
    }
}

/// An agent that runs. It is ended, by force if need be, when it is dropped.
pub struct TestAgent {
    child: Child,
    log: Arc<Log>,
    home: TempDir,
    config: PathBuf,
}

impl TestAgent {
    /// Starts an agent `a1` with a configuration of this text.
    pub fn start(config: &str) -> Self {
        Launch::new().config(config)
    }

    /// The same with more arguments.
    pub fn start_with(config: &str, args: &[&str]) -> Self {
        Launch::new().args(args).config(config)
    }

    /// A directory that lives as long as the agent.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Replaces the configuration that it was started with.
    pub fn rewrite(&self, config: &str) {
        fs::write(&self.config, config).expect("the temporary directory can be written to");
    }

    /// The whole log.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// The messages of all lines that contain `part`.
    pub fn messages(&self, part: &str) -> Vec<String> {
        let lines = self.log.lines();
        let matching = lines.iter().filter(|line| line.contains(part));
        matching.map(|line| message(line).to_owned()).collect()
    }

    /// What the logger sink has printed.
    pub fn events(&self) -> Vec<String> {
        self.messages("] Event: ")
    }

    /// Waits for a line that contains `part`.
    pub fn wait_for_line(&self, part: &str) -> String {
        self.wait_for_lines(part, 1).remove(0)
    }

    /// Waits for `count` lines that contain `part`, and gives all that there are.
    pub fn wait_for_lines(&self, part: &str, count: usize) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.log.lines();
        loop {
            let found: Vec<String> = lines.iter().filter(|line| line.contains(part)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                drop(lines);
                panic!("{} of {count} lines with {part:?}", found.len());
            };
            lines = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for `count` events of the logger sink, and gives all that there are.
    pub fn wait_for_events(&self, count: usize) -> Vec<String> {
        let lines = self.wait_for_lines("] Event: ", count);
        lines.iter().map(|line| message(line).to_owned()).collect()
    }

    /// The port of the only, or first, netcat source.
    pub fn port(&self) -> u16 {
        self.ports(1)[0]
    }

    /// The ports of netcat sources, in the order in which they came up.
    pub fn ports(&self, count: usize) -> Vec<u16> {
        let lines = self.wait_for_lines("Created serverSocket:", count);
        lines.iter().map(|line| last_number(line)).collect()
    }

    /// The port at the end of the first line that contains `part`.
    pub fn port_after(&self, part: &str) -> u16 {
        last_number(&self.wait_for_line(part))
    }

    fn metrics_port(&self) -> u16 {
        let line = self.wait_for_line("Metrics at http://localhost:");
        last_number(line.trim_end_matches("/metrics"))
    }

    /// Asks the metrics server.
    pub fn http(&self, method: &str, path: &str) -> Reply {
        http(self.metrics_port(), method, path)
    }

    /// All counters.
    pub fn metrics(&self) -> Value {
        let reply = self.http("GET", "/metrics");
        serde_json::from_str(&reply.body).expect("the counters are JSON")
    }

    /// One counter, once its component has it.
    pub fn counter(&self, group: &str, attribute: &str) -> u64 {
        super::eventually(|| self.metrics()[group][attribute].is_string().then_some(()));
        counter(&self.metrics(), group, attribute)
    }

    /// Waits until a counter has a value.
    pub fn wait_for_counter(&self, group: &str, attribute: &str, value: u64) {
        let seen = super::eventually(|| {
            let metrics = self.metrics();
            let now = metrics[group][attribute].as_str() == Some(&value.to_string());
            now.then_some(())
        });
        assert!(seen.is_some(), "{group} {attribute} is not {value}: {}", self.metrics());
    }

    /// The memory that it has now, in kilobytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        resident.and_then(|number| number.parse().ok()).expect("a process has memory")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process has an id");
        // An agent that has ended hears nothing any more, which is for the test to find out.
        let _gone = kill_process(pid, signal);
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = super::eventually(|| self.child.try_wait().expect("a child can be waited for"));
        let status = status.expect("the agent ends");
        // Its last lines may still be on their way.
        let lines = || self.log.lines().len();
        let mut before = lines();
        super::eventually(|| {
            thread::sleep(Duration::from_millis(20));
            let now = lines();
            (std::mem::replace(&mut before, now) == now).then_some(())
        });
        status
    }

    /// Ends it as service managers do, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// The last line of the log.
    pub fn last_line(&self) -> String {
        self.log.lines().last().cloned().unwrap_or_default()
    }
}

/// One counter of a scrape.
pub fn counter(metrics: &Value, group: &str, attribute: &str) -> u64 {
    let text = metrics[group][attribute].as_str();
    let number = text.and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no number {group} {attribute} in {metrics}"))
}

fn last_number(line: &str) -> u16 {
    let digits = line.trim_end_matches(|c: char| !c.is_ascii_digit());
    let start = digits.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    digits[start..].parse().expect("the line ends with a port")
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the agent ---\n{}\n--- end of the log ---", self.log());
        }
        let end = Instant::now() + LAST_CHANCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > end {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
                return;
            }
            // The first asks it to stop in order, the next ones to end at once.
            self.signal(Signal::TERM);
            thread::sleep(Duration::from_millis(20));
        }
    }
}
