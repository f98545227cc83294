//! The netcat source: each line received on a TCP port becomes one event.
//!
//! `OK` is written once the line is in every required channel, `FAILED: reason` when it is not. A line ends at a
//! line feed; a carriage return before it stays in the body. A full channel delays the answer and then fails it. A
//! line of `max-line-length` characters (Java's, UTF-16 units) or more is refused and ends the connection, as in
//! Flume. A line that is not valid in `encoding` is refused by itself; Flume ends the connection without a word and
//! loses the lines that came along.
//!
//! Keys: `bind`, `port`, `ack-every-event` (true), `max-line-length` (512), `encoding` (utf-8); not Flume's:
//! `max-connections` (20000; more clients wait in the kernel's queue).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ChannelProcessor, LineSplitter, Source, SourceBuilder, SourceConfig, SourceError, Terminator};
use crate::channel::ChannelError;
use crate::charset::{Charset, TextDecoder};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, NO_HEADERS};
use crate::net;
use crate::read_buffer::ReadBuffer;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["netcat"],
    class: "org.apache.flume.source.NetcatSource",
    build: |props| Some(Box::new(Arc::new(NetcatConfig::from_props(props)?))),
};

const MAX_LINE_LENGTH: i32 = 512;
const MAX_CONNECTIONS: i32 = 20_000;
const MAX_READ_BYTES: usize = 128 << 10;
/// So many lines are taken in before their answers are sent.
const LINES_AT_ONCE: usize = 4096;

/// The netcat source's keys.
#[derive(Clone, Debug)]
pub struct NetcatConfig {
    bind: String,
    port: u16,
    ack_every_event: bool,
    max_line_length: usize,
    encoding: Charset,
    max_connections: usize,
}

impl NetcatConfig {
    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let required = |key: &str| format!("Required parameter {key} must exist and may not be null");
        let encoding = props.or("encoding", "utf-8".to_owned());
        let charset = Charset::for_name(&encoding);
        if charset.is_none() {
            props.error("encoding", "a charset in which a line feed is one byte, such as utf-8 or iso-8859-1", "");
        }
        let config = Self {
            bind: props.required("bind", "a host name or address to listen on", &required("bind")),
            port: props.required("port", "a port to listen on", &required("port")),
            ack_every_event: props.or("ack-every-event", true),
            max_line_length: props.positive("max-line-length", MAX_LINE_LENGTH, "characters"),
            encoding: charset.unwrap_or(Charset::Utf8),
            max_connections: props.positive("max-connections", MAX_CONNECTIONS, "connections"),
        };
        props.finish(config)
    }
}

impl SourceConfig for Arc<NetcatConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(NetcatSource { name: name.to_owned(), config: Self::clone(self), listener: None })
    }
}

struct NetcatSource {
    name: String,
    config: Arc<NetcatConfig>,
    listener: Option<TcpListener>,
}

#[async_trait]
impl Source for NetcatSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let NetcatConfig { bind, port, .. } = &*self.config;
        info!("Source starting");
        let listener = net::listen(bind, *port).await.map_err(|error| {
            error!("Unable to bind to socket. Exception follows.");
            SourceError::io(format!("could not listen on {bind}:{port}"), error)
        })?;
        let address = listener.local_addr().map_err(|error| SourceError::io("the socket has no address", error))?;
        info!("Created serverSocket:sun.nio.ch.ServerSocketChannelImpl[/{address}]");
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let label = format!("Source {}", self.name);
        net::serve(listener, &label, self.config.max_connections, stop, |stream, peer| {
            let connection = Connection::new(peer, Arc::clone(&self.config), out.clone());
            let stop = stop.clone();
            async move { connection.serve(stream, &stop).await }
        })
        .await;
        info!("Source stopping");
        Ok(())
    }
}

/// Answers in the order of the lines: runs of `OK` are kept as a number until they are sent.
#[derive(Default)]
struct Answers {
    text: BytesMut,
    oks: usize,
    /// Why the client gets no more answers.
    failure: Option<io::Error>,
}

impl Answers {
    fn spell_oks(&mut self) {
        /// `OK` for many lines.
        static OKS: [u8; 3 * 1024] = {
            let mut oks = [b'\n'; 3 * 1024];
            let mut i = 0;
            while i < oks.len() {
                oks[i] = b'O';
                oks[i + 1] = b'K';
                i += 3;
            }
            oks
        };
        self.text.reserve(self.oks * 3);
        while self.oks > 0 {
            let some = self.oks.min(OKS.len() / 3);
            self.text.extend_from_slice(&OKS[..some * 3]);
            self.oks -= some;
        }
    }

    fn failed(&mut self, reason: &dyn std::fmt::Display) {
        self.spell_oks();
        self.text.extend_from_slice(format!("FAILED: {reason}\n").as_bytes());
    }

    /// Sends what is there. Cut off, it has noted what is sent, and goes on from there. When the client cannot be
    /// reached, its answers are dropped, and its lines, as far as they have been read, are still delivered.
    async fn send(&mut self, stream: &mut TcpStream) {
        self.spell_oks();
        while !self.text.is_empty() {
            let sent = match self.failure {
                Some(_) => Ok(0),
                None => stream.write_buf(&mut self.text).await,
            };
            match sent {
                Ok(1..) => {}
                Ok(0) => self.text.clear(),
                Err(error) => self.failure = Some(error),
            }
        }
    }
}

/// What a piece of input came to.
enum Verdict {
    GoOn,
    Close,
}

struct Connection {
    peer: SocketAddr,
    config: Arc<NetcatConfig>,
    out: ChannelProcessor,
    decoder: Option<TextDecoder>,
    splitter: LineSplitter,
    /// Between reads it holds less than one line.
    buffer: ReadBuffer,
    answers: Answers,
    /// Lines of the last read, as a guess for the next.
    usual_lines: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

impl Connection {
    fn new(peer: SocketAddr, config: Arc<NetcatConfig>, out: ChannelProcessor) -> Self {
        out.counters().open_connections.add(1);
        let decoder = (config.encoding != Charset::Utf8).then(|| config.encoding.decoder());
        Self {
            peer,
            config,
            out,
            decoder,
            splitter: LineSplitter::new(Terminator::Lf),
            buffer: ReadBuffer::new(MAX_READ_BYTES),
            answers: Answers::default(),
            usual_lines: 1,
        }
    }

    async fn serve(mut self, mut stream: TcpStream, stop: &CancellationToken) {
        match self.converse(&mut stream, stop).await {
            // Lines that are in the channel get their answers even now; a client that does not read gets none.
            Ok(()) if stop.is_cancelled() => {
                tokio::time::timeout(net::LAST_ANSWERS, self.answers.send(&mut stream)).await.ok();
            }
            Ok(()) => {}
            Err(error) => {
                if let Some(others) = self.out.may_complain() {
                    warn!("Source {}: lost the connection from {}: {error}{others}", self.out.source(), self.peer);
                }
                self.out.counters().event_read_fail.add(1);
            }
        }
    }

    async fn converse(&mut self, stream: &mut TcpStream, stop: &CancellationToken) -> io::Result<()> {
        loop {
            self.buffer.release_if_empty();
            match stop.run_until_cancelled(stream.readable()).await {
                Some(ready) => ready?,
                None => return Ok(()),
            }
            tokio::task::consume_budget().await;
            let room = self.buffer.room();
            let size = room.capacity() - room.len();
            match stream.try_read_buf(room) {
                Ok(0) => {
                    let bytes = self.buffer.pending().len();
                    if bytes > 0 {
                        if let Some(others) = self.out.may_complain() {
                            let (source, peer) = (self.out.source(), self.peer);
                            warn!(
                                "Source {source}: {bytes} bytes after the last line feed from {peer} are dropped{others}"
                            );
                        }
                        self.out.counters().event_read_fail.add(1);
                    }
                    return Ok(());
                }
                Ok(read) => self.buffer.filled(read, size),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let whole = self.splitter.whole(self.buffer.pending());
            let mut lines = if whole > 0 { self.lines(whole) } else { Bytes::new() };
            let mut verdict = Verdict::GoOn;
            // Some lines at a time, so that the answers to very many short ones stay within bounds.
            while !lines.is_empty() && matches!(verdict, Verdict::GoOn) {
                verdict = self.take_in(stream, &mut lines, stop).await;
                if stop.run_until_cancelled(self.answers.send(stream)).await.is_none() {
                    return Ok(());
                }
            }
            if matches!(verdict, Verdict::GoOn) && self.pending_is_too_long() {
                verdict = self.refuse_long();
                if stop.run_until_cancelled(self.answers.send(stream)).await.is_none() {
                    return Ok(());
                }
            }
            if let Some(error) = self.answers.failure.take() {
                return Err(error);
            }
            if matches!(verdict, Verdict::Close) {
                return net::close_gently(stream).await;
            }
        }
    }

    /// The first `whole` bytes as UTF-8, as far as they are valid.
    fn lines(&mut self, whole: usize) -> Bytes {
        let lines = self.buffer.take(whole);
        let Some(decoder) = &mut self.decoder else { return lines };
        let mut text = String::new();
        decoder.decode(&lines, &mut text);
        text.into()
    }

    /// Makes events of the first lines, as many as are taken in at once, and delivers them.
    async fn take_in(&mut self, stream: &mut TcpStream, lines: &mut Bytes, stop: &CancellationToken) -> Verdict {
        let limit = self.config.max_line_length;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut batch = Batch::with_capacity(self.usual_lines);
        let mut buffer = batch.push_buffer(lines.clone());
        let all_valid = std::str::from_utf8(lines).is_ok();
        let mut closed = false;
        let used = self.splitter.split_some(lines, LINES_AT_ONCE, |start, end| {
            if closed {
                return;
            }
            let line = &lines[start..end];
            let problem = if is_too_long(line, limit) {
                closed = true;
                Problem::TooLong
            } else if !all_valid && let Err(error) = std::str::from_utf8(line) {
                let offset = error.valid_up_to();
                Problem::Undecodable { byte: line[offset], offset }
            } else {
                batch.push_span(buffer, start, end, NO_HEADERS);
                return;
            };
            // A refused line ends the batch: answers keep the order of the lines.
            if !batch.is_empty() {
                pieces.push(Piece::Events(std::mem::take(&mut batch)));
                buffer = batch.push_buffer(lines.clone());
            }
            pieces.push(Piece::Refused(problem));
        });
        bytes::Buf::advance(lines, used);
        if pieces.is_empty() {
            self.usual_lines = batch.len().max(1);
            self.deliver(stream, batch, used, stop).await;
            return Verdict::GoOn;
        }
        if !batch.is_empty() {
            pieces.push(Piece::Events(batch));
        }
        for piece in pieces {
            match piece {
                Piece::Events(batch) => self.deliver(stream, batch, used, stop).await,
                Piece::Refused(Problem::TooLong) => return self.refuse_long(),
                Piece::Refused(Problem::Undecodable { byte, offset }) => self.refuse_undecodable(byte, offset),
            }
        }
        Verdict::GoOn
    }

    async fn deliver(
        &mut self,
        stream: &mut TcpStream,
        mut batch: Batch,
        buffer_bytes: usize,
        stop: &CancellationToken,
    ) {
        // Events that are little of what came must not keep all of it.
        if batch.body_bytes() < buffer_bytes / 4 {
            batch.repack();
        }
        let Self { out, answers, config, peer, .. } = self;
        let note = |answers: &mut Answers, events: usize, refused: Option<&ChannelError>| match refused {
            None if config.ack_every_event => answers.oks += events,
            None => {}
            Some(reason) => {
                if let Some(others) = out.may_complain() {
                    let source = out.source();
                    error!(
                        "Error processing event. Exception follows. Source {source}, client {peer}: {reason}{others}"
                    );
                }
                for _ in 0..events {
                    answers.failed(reason);
                }
            }
        };
        let mut each = out.deliver_each(batch);
        while !each.ready(|events, refused| note(answers, events, refused)).await {
            // Whoever has had an event accepted hears so before the next one waits for room.
            stop.run_until_cancelled(answers.send(stream)).await;
            each.one(stop, |events, refused| note(answers, events, refused)).await;
        }
    }

    /// Whether a line that is not at its end yet has reached the limit.
    fn pending_is_too_long(&self) -> bool {
        let (pending, limit) = (self.buffer.pending(), self.config.max_line_length);
        match self.decoder {
            None => is_too_long(pending, limit),
            Some(_) if matches!(self.config.encoding, Charset::Latin1 | Charset::Ascii) => pending.len() >= limit,
            // How many characters these bytes are shows when the line is whole.
            Some(_) => pending.len() >= limit.saturating_mul(4),
        }
    }

    fn refuse_long(&mut self) -> Verdict {
        let limit = self.config.max_line_length;
        if let Some(others) = self.out.may_complain() {
            let (source, peer) = (self.out.source(), self.peer);
            warn!("Client sent event exceeding the maximum length ({limit}): source {source}, client {peer}{others}");
        }
        self.out.refuse(1);
        self.out.counters().event_read_fail.add(1);
        self.answers.failed(&format_args!("Event exceeds the maximum length ({limit} chars, including newline)"));
        Verdict::Close
    }

    fn refuse_undecodable(&mut self, byte: u8, offset: usize) {
        if let Some(others) = self.out.may_complain() {
            let (source, peer) = (self.out.source(), self.peer);
            warn!("Source {source}: a line from {peer} is not UTF-8 (byte 0x{byte:02X} at {offset}), refused{others}");
        }
        self.out.refuse(1);
        self.out.counters().event_read_fail.add(1);
        self.answers.failed(&format_args!("Event is not valid UTF-8 (byte 0x{byte:02X} at offset {offset})"));
    }
}

/// A run of events, or a line that is none.
enum Piece {
    Events(Batch),
    Refused(Problem),
}

enum Problem {
    TooLong,
    Undecodable { byte: u8, offset: usize },
}

/// Whether a line has at least `limit` characters, as Java counts them: UTF-16 units.
fn is_too_long(line: &[u8], limit: usize) -> bool {
    // A unit takes one to three bytes of UTF-8, so that few or many bytes need no counting, whatever they are.
    line.len() >= limit && (line.len() >= limit.saturating_mul(3) || java_length(line) >= limit)
}

/// The length of a text in UTF-16 units.
fn java_length(text: &[u8]) -> usize {
    // Continuation bytes add nothing, and a character of four bytes is two units.
    text.iter().map(|byte| usize::from(!(0x80..0xC0).contains(byte)) + usize::from(*byte >= 0xF0)).sum()
}

#[cfg(test)]
mod tests;
