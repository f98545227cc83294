//! Text from a server: a client that reads lines, and connects again when the connection is gone.
//!
//! | key | default | what |
//! |---|---|---|
//! | `connect` | | `host:port` of the server |
//! | `max-line` | 1048576 | the most bytes of a line, up to 268435456; a longer one is cut there |
//!
//! Lines end with LF or CR LF. What was read and not yet committed when the job is killed is lost, as the server cannot
//! be asked for it again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Cut, MaxLine, Position, Source, SourceConfig, SourceError};
use crate::format::Records;
use crate::job::{Address, JobError, Keys};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SocketConfig {
    connect: Address,
    #[serde(default)]
    max_line: MaxLine,
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    Ok(Box::new(keys.read::<SocketConfig>()?))
}

impl SourceConfig for SocketConfig {
    fn spark(&self) -> Result<serde_json::Value, String> {
        let Address { host, port } = &self.connect;
        Ok(serde_json::json!({ "format": "socket", "options": { "host": host, "port": port.to_string() } }))
    }

    fn build(&self, name: &str, once: bool) -> Box<dyn Source> {
        let shared = Arc::new(Shared::default());
        Box::new(Socket { name: name.to_owned(), config: self.clone(), once, shared, reader: None })
    }
}

/// So many bytes may wait for the next batch; a server that is faster is held back.
const MAX_WAITING: usize = 64 << 20;
/// How long to wait before a connection is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that has been silent for so long is asked whether it is still there, and again after so long.
const SILENCE: Duration = Duration::from_secs(60);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Waiting {
    /// Whole reads with whole lines in them, in order.
    records: VecDeque<Records>,
    bytes: usize,
    ended: bool,
}

/// What the reading task and the engine share.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
    went: Notify,
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Socket {
    name: String,
    config: SocketConfig,
    once: bool,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[async_trait]
impl Source for Socket {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        let (name, config, once, shared) =
            (self.name.clone(), self.config.clone(), self.once, Arc::clone(&self.shared));
        self.reader = Some(tokio::spawn(async move {
            let mut complained = false;
            loop {
                match connect(&config.connect).await {
                    Ok(stream) => {
                        info!("source {name}: connected to {}", config.connect);
                        complained = false;
                        match read_lines(stream, config.max_line.0, &shared).await {
                            Ok(()) => info!("source {name}: {} has closed the connection", config.connect),
                            Err(error) => warn!("source {name}: the connection to {} broke: {error}", config.connect),
                        }
                        if once {
                            break;
                        }
                    }
                    Err(error) if !complained => {
                        warn!("source {name}: cannot connect to {}: {error}; trying again", config.connect);
                        complained = true;
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            shared.waiting().ended = true;
            shared.came.notify_one();
        }));
        Ok(())
    }

    async fn ready(&mut self) {
        loop {
            {
                let waiting = self.shared.waiting();
                if !waiting.records.is_empty() || waiting.ended {
                    return;
                }
            }
            self.shared.came.notified().await;
        }
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        let mut records = Records::default();
        let mut waiting = self.shared.waiting();
        while let Some(next) = waiting.records.front()
            && (records.is_empty() || records.len() + next.len() <= max_records)
        {
            let next = waiting.records.pop_front().expect("there is one in front");
            waiting.bytes -= next.size();
            if records.is_empty() {
                records = next;
            } else {
                records.append(&next);
            }
        }
        drop(waiting);
        self.shared.went.notify_one();
        Ok(Cut { records: vec![records], position: None })
    }

    fn is_exhausted(&self) -> bool {
        let waiting = self.shared.waiting();
        waiting.ended && waiting.records.is_empty()
    }

    async fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(address.to_string())).await;
    let stream = stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 s"))??;
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(BETWEEN_QUESTIONS);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

async fn read_lines(mut stream: TcpStream, max_line: usize, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        buffer.reserve(16 << 10);
        let read = stream.read_buf(&mut buffer).await;
        let ended = !matches!(read, Ok(n) if n > 0);
        let (records, used) = split(&buffer, max_line, ended);
        buffer.drain(..used);
        if !records.is_empty() {
            while shared.waiting().bytes >= MAX_WAITING {
                shared.went.notified().await;
            }
            let mut waiting = shared.waiting();
            waiting.bytes += records.size();
            waiting.records.push_back(records);
            drop(waiting);
            shared.came.notify_one();
        }
        if ended {
            return read.map(drop);
        }
    }
}

/// A line without the rest of its ending.
fn content(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The lines in a buffer, and how much of it they take. At the end of the stream the rest is a line as well. It makes no
/// difference in how many reads a line comes.
fn split(buffer: &[u8], max_line: usize, ended: bool) -> (Records, usize) {
    let (mut records, mut start) = (Records::default(), 0);
    let has_rest = ended && buffer.last().is_some_and(|last| *last != b'\n');
    for end in memchr::memchr_iter(b'\n', buffer).chain(has_rest.then_some(buffer.len())) {
        let line = content(&buffer[start..end]);
        if line.is_empty() {
            records.push(line);
        }
        line.chunks(max_line).for_each(|part| records.push(part));
        start = (end + 1).min(buffer.len());
    }
    // One that is as long as a line may be is cut when there is more of it than its ending.
    while content(&buffer[start..]).len() > max_line {
        records.push(&buffer[start..start + max_line]);
        start += max_line;
    }
    (records, start)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn lines(buffer: &[u8], max_line: usize, ended: bool) -> (Vec<String>, usize) {
        let (records, used) = split(buffer, max_line, ended);
        (records.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect(), used)
    }

    #[test]
    fn lines_end_with_either_ending_or_with_the_stream() {
        assert_eq!(lines(b"a\r\nb\n\nc", 100, false), (vec!["a".into(), "b".into(), String::new()], 6));
        assert_eq!(lines(b"a\nb", 100, true), (vec!["a".into(), "b".into()], 3));
        assert_eq!(lines(b"aaaabbbbc", 4, false), (vec!["aaaa".into(), "bbbb".into()], 8), "none is without bound");
        assert_eq!(lines(b"aaaa\r\n\r\n", 4, false), (vec!["aaaa".into(), String::new()], 8));
        assert_eq!(lines(b"a\n", 100, true), (vec!["a".into()], 2), "nothing is no line");
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_reads(reads in vec("[a\r\n]{0,6}", 0..8), max_line in 1_usize..4) {
            let (whole, _) = lines(reads.concat().as_bytes(), max_line, true);
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            for (index, read) in reads.iter().enumerate() {
                buffer.extend_from_slice(read.as_bytes());
                let (records, used) = lines(&buffer, max_line, index + 1 == reads.len());
                buffer.drain(..used);
                found.extend(records);
            }
            prop_assert!(whole.iter().all(|line| line.len() <= max_line));
            prop_assert_eq!(whole, found);
        }
    }
}
