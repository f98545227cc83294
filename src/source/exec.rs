//! The exec source: each line that a command prints becomes one event.
//!
//! Lines end at LF, CR or both; a last line without an end is delivered when the output ends. What is read is
//! delivered at once, in transactions of at most `batchSize`; nothing waits for a batch to fill, so `batchTimeout`
//! has nothing to do. A full channel holds the command back through its pipe: nothing is lost there, where Flume
//! kills the command and drops its buffer. The command runs in a process group of its own, which ends with the
//! source, and with the agent even when that is killed. A command that cannot be started is tried again with back-off.
//!
//! Keys: `command`, `shell`, `restart` (false), `restartThrottle` (10000 ms), `logStdErr` (false), `batchSize` (20),
//! `batchTimeout` (3000 ms), `charset` (UTF-8); not Flume's: `max-line-bytes` (16777216; a longer line is cut into
//! several events).

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{ChannelProcessor, LineSplitter, Pipeline, Source, SourceBuilder, SourceConfig, SourceError, Terminator};
use crate::charset::Charset;
use crate::config::{ComponentType, Props};
use crate::event::{Batch, NO_HEADERS};
use crate::read_buffer::ReadBuffer;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["exec"],
    class: "org.apache.flume.source.ExecSource",
    build: |props| Some(Box::new(Arc::new(ExecConfig::from_props(props)?))),
};

const BATCH_SIZE: i32 = 20;
const BATCH_TIMEOUT_MS: i64 = 3000;
const RESTART_THROTTLE_MS: i64 = 10_000;
const MAX_LINE_BYTES: i32 = 16 << 20;
/// The kernel's largest pipe for an ordinary user: fewer switches between the command and the agent.
const PIPE_BYTES: usize = 1 << 20;
const MAX_READ_BYTES: usize = 256 << 10;
/// How long a command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_POLL: Duration = Duration::from_millis(10);
/// What Flume prints for a command that was never started.
const NEVER_STARTED: i32 = -1_073_741_824;

/// The exec source's keys.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    command: String,
    shell: Option<String>,
    restart: bool,
    restart_throttle: Duration,
    log_stderr: bool,
    batch_size: usize,
    charset: Charset,
    max_line_bytes: usize,
}

impl ExecConfig {
    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let batch_size = props.or("batchSize", BATCH_SIZE);
        if batch_size < 1 {
            props.warning("batchSize", "expected a number of events, at least 1; 1 is used");
        }
        props.or("batchTimeout", BATCH_TIMEOUT_MS);
        let throttle = props.or("restartThrottle", RESTART_THROTTLE_MS);
        if throttle < 0 {
            props.error("restartThrottle", "a number of milliseconds, at least 0", "");
        }
        let max_line_bytes = props.or("max-line-bytes", MAX_LINE_BYTES);
        if max_line_bytes < 1 {
            props.error("max-line-bytes", "a number of bytes, at least 1", "");
        }
        let charset = Charset::for_name(&props.or("charset", "UTF-8".to_owned()));
        if charset.is_none() {
            props.error("charset", "a charset in which a line feed is one byte, such as UTF-8 or ISO-8859-1", "");
        }
        let config = Self {
            command: props.required("command", "a command to run", "The parameter command must be specified"),
            shell: props.optional("shell"),
            restart: props.or("restart", false),
            restart_throttle: Duration::from_millis(throttle.max(0) as u64),
            log_stderr: props.or("logStdErr", false),
            batch_size: batch_size.max(1) as usize,
            charset: charset.unwrap_or(Charset::Utf8),
            max_line_bytes: max_line_bytes.max(1) as usize,
        };
        props.finish(config)
    }

    /// Program and arguments: the shell's words and the command as one more, or the command's words.
    fn words(&self) -> Vec<&str> {
        match &self.shell {
            Some(shell) => shell.split_whitespace().chain([self.command.as_str()]).collect(),
            None => self.command.split_whitespace().collect(),
        }
    }
}

impl SourceConfig for Arc<ExecConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, _name: &str) -> Box<dyn Source> {
        Box::new(ExecSource { config: Self::clone(self), running: None })
    }
}

struct ExecSource {
    config: Arc<ExecConfig>,
    running: Option<Running>,
}

/// A command that has been started. Dropped before it has ended, it is killed with its whole group.
struct Running {
    child: Child,
    group: Option<Pid>,
    /// Ends the group when the agent is gone without having done so.
    guard: Option<Child>,
    stdout: ChildStdout,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            // A group that is gone already is what this is for.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Running {
    fn start(config: &ExecConfig) -> io::Result<Self> {
        let words = config.words();
        let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the command has no output"))?;
        // A system that does not allow it keeps its own size.
        rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES).ok();
        if let Some(stderr) = child.stderr.take() {
            let log = config.log_stderr;
            // Ends when the command and whoever has its stderr end.
            tokio::spawn(drain_stderr(stderr, log));
        }
        let guard = group.and_then(|group| match guard(group) {
            Ok(guard) => Some(guard),
            Err(error) => {
                debug!("the command has no guard, or has ended already: {error}");
                None
            }
        });
        Ok(Self { child, group, guard, stdout })
    }

    /// Ends the whole group, first by SIGTERM, and gives the command's exit code as Java has it.
    async fn end(mut self) -> i32 {
        if let Some(group) = self.group {
            kill_process_group(group, Signal::TERM).ok();
        }
        let ended = tokio::time::timeout(GRACE, async {
            let status = self.child.wait().await;
            if let Some(guard) = &mut self.guard {
                guard.wait().await.ok();
            }
            while let Some(group) = self.group
                && tokio::task::spawn_blocking(move || lives(group)).await.unwrap_or(false)
            {
                tokio::time::sleep(GRACE_POLL).await;
            }
            status
        });
        let status = match ended.await {
            Ok(status) => status,
            Err(_) => {
                if let Some(group) = self.group {
                    kill_process_group(group, Signal::KILL).ok();
                }
                self.child.wait().await
            }
        };
        self.group = None;
        status.map_or(i32::MIN, exit_code)
    }
}

/// Whether a process of the group still runs. Those that have ended and wait for somebody to ask for their status do
/// not count: that may take init a while.
fn lives(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // PID (NAME) STATE PARENT GROUP …, where the name may hold anything.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let (state, group_of) = (fields.next(), fields.nth(1));
        group_of.and_then(|id| id.parse().ok()) == Some(group.as_raw_nonzero().get()) && state != Some("Z")
    })
}

/// A shell in the command's group that reads from the agent, which never writes: its read ends when the agent is gone,
/// however that came, and then it ends the group.
fn guard(group: Pid) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", "read -r _; kill -s KILL 0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(group.as_raw_nonzero().get())
        .kill_on_drop(true)
        .spawn()
}

/// The exit code as Java gives it: 128 and the signal for a command that a signal ended.
fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(i32::MIN)
}

async fn drain_stderr(mut stderr: impl AsyncRead + Unpin, log: bool) {
    const MAX_LINE_BYTES: usize = 8 << 10;
    let mut splitter = LineSplitter::new(Terminator::Any);
    let mut pending = BytesMut::with_capacity(MAX_LINE_BYTES);
    let mut number = 0u64;
    loop {
        let read = stderr.read_buf(&mut pending).await.unwrap_or(0);
        if !log {
            pending.clear();
        }
        let whole = match splitter.whole(&pending) {
            0 if pending.len() >= MAX_LINE_BYTES || read == 0 && !pending.is_empty() => {
                pending.extend_from_slice(b"\n");
                pending.len()
            }
            whole => whole,
        };
        let lines = pending.split_to(whole);
        splitter.split(&lines, |start, end| {
            number += 1;
            info!("StderrLogger[{number}] = '{}'", String::from_utf8_lossy(&lines[start..end]));
        });
        if read == 0 {
            break;
        }
    }
    if log {
        info!("StderrLogger exiting");
    }
}

#[async_trait]
impl Source for ExecSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let command = &self.config.command;
        info!("Exec source starting with command: {command}");
        let running = Running::start(&self.config).map_err(|error| {
            error!("Failed while running command: {command}");
            info!("Command [{command}] exited with {NEVER_STARTED}");
            SourceError::io(format!("could not run {}", self.config.words().first().unwrap_or(&"")), error)
        })?;
        self.running = Some(running);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let config = Arc::clone(&self.config);
        loop {
            let mut running = match self.running.take() {
                Some(running) => running,
                None => Running::start(&config).map_err(|error| {
                    error!("Failed while running command: {}", config.command);
                    SourceError::io("could not run the command again", error)
                })?,
            };
            let mut reader = Reader::new(out, &config);
            let mut pipeline = Pipeline::new(out, stop);
            let outcome = reader.pump(&mut running.stdout, &mut pipeline, stop).await;
            pipeline.finish().await;
            if stop.is_cancelled() {
                info!("Stopping exec source with command: {}", config.command);
            }
            if let Err(error) = outcome {
                error!("Failed while running command: {}: {error}", config.command);
                out.counters().event_read_fail.add(1);
            }
            let code = running.end().await;
            if !config.restart || stop.is_cancelled() {
                info!("Command [{}] exited with {code}", config.command);
                return Ok(());
            }
            info!("Restarting in {}ms, exit code {code}", config.restart_throttle.as_millis());
            if stop.run_until_cancelled(tokio::time::sleep(config.restart_throttle)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// Turns a command's output into batches.
struct Reader<'a> {
    source: &'a ChannelProcessor,
    config: &'a ExecConfig,
    splitter: LineSplitter,
    buffer: ReadBuffer,
}

impl<'a> Reader<'a> {
    fn new(source: &'a ChannelProcessor, config: &'a ExecConfig) -> Self {
        let splitter = LineSplitter::new(Terminator::Any);
        Self { source, config, splitter, buffer: ReadBuffer::new(MAX_READ_BYTES) }
    }

    /// Reads until the output ends, or until it is told to stop.
    async fn pump(
        &mut self,
        stdout: &mut ChildStdout,
        out: &mut Pipeline<'_>,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        loop {
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                read = self.buffer.read_from(stdout) => read?,
                () = out.ready() => {
                    out.settle().await;
                    continue;
                }
            };
            let pending = self.buffer.pending();
            if read == 0 {
                if !pending.is_empty() {
                    self.deliver_unended(out).await;
                }
                return Ok(());
            }
            // Only what is new can hold the end of a line.
            let seen = pending.len() - read;
            let whole = match self.splitter.whole(&pending[seen..]) {
                0 => 0,
                whole => seen + whole,
            };
            if whole > 0 {
                self.deliver(out, whole).await;
            } else if pending.len() >= self.config.max_line_bytes {
                if let Some(others) = self.source.may_complain() {
                    let (source, limit) = (self.source.source(), self.config.max_line_bytes);
                    warn!("Source {source}: a line of more than {limit} bytes is cut into several events{others}");
                }
                self.deliver_unended(out).await;
            }
        }
    }

    /// Delivers what is pending as if its line had ended.
    async fn deliver_unended(&mut self, out: &mut Pipeline<'_>) {
        self.buffer.end_line();
        self.deliver(out, self.buffer.pending().len()).await;
    }

    async fn deliver(&mut self, out: &mut Pipeline<'_>, whole: usize) {
        let lines = clean(self.config.charset, self.buffer.take(whole));
        let mut rest = 0;
        // A transaction at a time, so that a read of very many short lines stays within bounds.
        while rest < lines.len() {
            let text = &lines[rest..];
            let mut batch = Batch::with_capacity(self.config.batch_size.min(text.len()));
            let buffer = batch.push_buffer(lines.clone());
            rest += self.splitter.split_some(text, self.config.batch_size, |start, end| {
                batch.push_span(buffer, rest + start, rest + end, NO_HEADERS);
            });
            if !batch.is_empty() {
                out.deliver(batch).await;
            }
        }
    }
}

/// Decodes and encodes again, as Flume does: what is malformed becomes the charset's replacement.
fn clean(charset: Charset, lines: Bytes) -> Bytes {
    let text = match charset {
        Charset::Latin1 => return lines,
        Charset::Utf8 if std::str::from_utf8(&lines).is_ok() => return lines,
        Charset::Ascii if lines.is_ascii() => return lines,
        _ => {
            let mut text = String::with_capacity(lines.len());
            charset.decoder().decode(&lines, &mut text);
            text
        }
    };
    charset.encode(&text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shell: Option<&str>, command: &str) -> ExecConfig {
        ExecConfig {
            command: command.to_owned(),
            shell: shell.map(str::to_owned),
            restart: false,
            restart_throttle: Duration::ZERO,
            log_stderr: false,
            batch_size: 20,
            charset: Charset::Utf8,
            max_line_bytes: 100,
        }
    }

    #[test]
    fn words_follow_flume() {
        assert_eq!(config(None, "tail  -F 'a b'").words(), ["tail", "-F", "'a", "b'"]);
        assert_eq!(config(Some("/bin/sh -c"), "tail -F a | cat").words(), ["/bin/sh", "-c", "tail -F a | cat"]);
    }

    #[test]
    fn malformed_bytes_are_replaced() {
        assert_eq!(clean(Charset::Utf8, Bytes::from_static(b"c\xff\n")), "c\u{fffd}\n".as_bytes());
        assert_eq!(clean(Charset::Latin1, Bytes::from_static(b"c\xff\n")), &b"c\xff\n"[..]);
    }
}
