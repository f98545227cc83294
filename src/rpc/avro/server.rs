//! A connection at the server's side.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pack::{PackError, PackReader};
use super::protocol::Registry;
use super::responder::{Call, HandshakeError, Opened, Responder};
use crate::net::{self, Stream};

/// So many bytes of answers are sent before more calls are read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// So much room for answers is kept between them.
const KEPT_BYTES: usize = 4 << 10;

/// What a server does with calls. Each connection has its own.
pub trait Service: Send {
    /// Whether a client that closes its sending side is gone, even while a call of its is being executed. Otherwise it
    /// gets its answer first.
    const ENDS_WITH_INPUT: bool;

    /// Executes a call: the result's datum, or the text of an error.
    fn call(&mut self, call: &Call) -> impl Future<Output = Result<Vec<u8>, String>> + Send;

    /// Hears of a message that was answered with an error without coming to a call.
    fn complain(&self, what: &dyn Display);
}

/// Why a connection ended before its time.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The network's reason.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no data pack.
    #[error("what came is not Avro RPC: {0}")]
    Pack(#[from] PackError),
    /// There was no agreement.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The client left in the middle of a message.
    #[error("closed in the middle of a message, {0} bytes into it")]
    Truncated(usize),
    /// The client said nothing more in the middle of a message.
    #[error("silent in the middle of a message, {0} bytes into it, for {1:?}")]
    Silent(usize, Duration),
}

/// What a server allows its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a pack.
    pub pack_bytes: usize,
    /// How long a client may be silent in the middle of a message.
    pub silence: Duration,
}

/// Serves one connection: calls are executed in the order in which they come, and answered in that order. Ends with
/// the client, or once the answers due are out when it is told to stop. A call that waits must hear the stop itself.
pub async fn serve<T: Stream, S: Service>(
    stream: &mut T,
    service: &mut S,
    registry: Arc<Registry>,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<(), ConnectionError> {
    let mut connection = Connection {
        stream,
        reader: PackReader::new(limits.pack_bytes),
        responder: Responder::new(registry),
        out: BytesMut::new(),
        silence: limits.silence,
        stop,
    };
    let outcome = connection.converse(service).await;
    // What has been executed is answered even now, unless the client does not read.
    let goodbye = async {
        connection.send().await?;
        match outcome {
            Ok(()) => connection.stream.shutdown().await,
            Err(_) => net::close_gently(connection.stream).await,
        }
    };
    timeout(net::LAST_ANSWERS, goodbye).await.ok();
    outcome
}

struct Connection<'a, T> {
    stream: &'a mut T,
    reader: PackReader,
    responder: Responder,
    /// Answers that are not sent yet.
    out: BytesMut,
    silence: Duration,
    stop: &'a CancellationToken,
}

impl<T: Stream> Connection<'_, T> {
    async fn converse<S: Service>(&mut self, service: &mut S) -> Result<(), ConnectionError> {
        while !self.stop.is_cancelled() {
            match self.reader.next_pack()? {
                Some(pack) => match self.responder.open(pack, &mut self.out)? {
                    Opened::Call(call) if !self.execute(service, &call).await? => return Ok(()),
                    Opened::Call(_) | Opened::Answered => {}
                    Opened::Refused(why) => service.complain(&why),
                },
                None => {
                    self.send_unless_stopped().await?;
                    if !self.read().await? {
                        return Ok(());
                    }
                    tokio::task::consume_budget().await;
                }
            }
            if self.out.len() > MAX_ANSWER_BYTES {
                self.send_unless_stopped().await?;
            }
        }
        Ok(())
    }

    /// Reads more. `false` when nothing more comes, or the server stops.
    async fn read(&mut self) -> Result<bool, ConnectionError> {
        let buffer = self.reader.buffer();
        let inside = buffer.pending().len();
        let read = async {
            let read = buffer.read_from(self.stream);
            if inside == 0 { Ok(read.await) } else { timeout(self.silence, read).await }
        };
        match self.stop.run_until_cancelled(read).await {
            None => Ok(false),
            Some(Err(_)) => Err(ConnectionError::Silent(inside, self.silence)),
            Some(Ok(Ok(0))) if inside > 0 => Err(ConnectionError::Truncated(inside)),
            Some(Ok(read)) => Ok(read? > 0),
        }
    }

    /// Executes a call. If it has to wait for anything, the answers before it go out first. `false` when the client is
    /// gone meanwhile, and with it the call.
    async fn execute<S: Service>(&mut self, service: &mut S, call: &Call) -> io::Result<bool> {
        let mut result = pin!(service.call(call));
        let result = match poll_fn(|cx| Poll::Ready(result.as_mut().poll(cx))).await {
            Poll::Ready(result) => result,
            Poll::Pending => {
                self.send_unless_stopped().await?;
                if S::ENDS_WITH_INPUT {
                    tokio::select! {
                        biased;
                        result = result => result,
                        gone = self.watch() => return gone.map(|()| false),
                    }
                } else {
                    result.await
                }
            }
        };
        call.answer(&mut self.out, result.as_deref().map_err(String::as_str));
        Ok(true)
    }

    /// Waits until the client has closed its side; what it sends until then is kept, up to a limit.
    async fn watch(&mut self) -> io::Result<()> {
        while self.reader.buffer().pending().len() < MAX_ANSWER_BYTES {
            if self.reader.buffer().read_from(self.stream).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    async fn send_unless_stopped(&mut self) -> io::Result<()> {
        let stop = self.stop;
        stop.run_until_cancelled(self.send()).await.unwrap_or(Ok(()))
    }

    /// Sends the answers. Cut off, it can go on.
    async fn send(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        while !self.out.is_empty() {
            if self.stream.write_buf(&mut self.out).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await?;
        if self.out.capacity() > KEPT_BYTES {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::super::datum::put_bytes;
    use super::super::events::{put_array, put_items};
    use super::super::handshake::HandshakeRequest;
    use super::super::pack::put_request;
    use super::super::protocol::AVRO_SOURCE;
    use super::super::responder::java_error;
    use super::super::status;
    use super::*;
    use crate::event::{Batch, Event};

    const LIMITS: Limits = Limits { pack_bytes: 1 << 20, silence: Duration::from_secs(60) };

    /// Keeps what comes, and takes its time for every other call.
    #[derive(Default)]
    struct Keeper<const ENDS_WITH_INPUT: bool> {
        batches: Vec<Batch>,
        calls: usize,
    }

    impl<const ENDS_WITH_INPUT: bool> Keeper<ENDS_WITH_INPUT> {
        fn execute(&mut self, call: &Call) -> Result<Vec<u8>, String> {
            let batch = if call.message == "append" { call.event("event") } else { call.events("events") };
            self.batches.push(batch.map_err(java_error)?);
            Ok(status::OK.to_vec())
        }
    }

    impl<const ENDS_WITH_INPUT: bool> Service for Keeper<ENDS_WITH_INPUT> {
        const ENDS_WITH_INPUT: bool = ENDS_WITH_INPUT;

        async fn call(&mut self, call: &Call) -> Result<Vec<u8>, String> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
            self.execute(call)
        }

        fn complain(&self, _what: &dyn Display) {}
    }

    /// A client's whole stream: calls of all kinds, also such as cannot be executed.
    fn requests() -> impl Strategy<Value = BytesMut> {
        let events = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10_000), 0..3);
        let call = (prop::sample::select(vec!["append", "appendBatch", "appendAll", ""]), events, any::<bool>());
        prop::collection::vec(call, 1..16).prop_map(|calls| {
            let mut stream = BytesMut::new();
            for (serial, (message, bodies, whole)) in (1..).zip(calls) {
                let mut head = Vec::new();
                if serial == 1 {
                    let hash = AVRO_SOURCE.hash;
                    HandshakeRequest { client_hash: hash, client_protocol: None, server_hash: hash }.put(&mut head);
                }
                head.push(0);
                put_bytes(&mut head, message);
                let batch: Batch = bodies.into_iter().map(|body| Event::new(body).with("host", "web1")).collect();
                let mut parameters = Vec::new();
                match message {
                    "append" => put_items(&mut parameters, &batch.front(1)),
                    _ => put_array(&mut parameters, &batch),
                }
                parameters.truncate(parameters.len() - usize::from(!whole && !parameters.is_empty()));
                put_request(&mut stream, serial, &head, &parameters);
            }
            stream
        })
    }

    /// What is answered, and what is kept, without a network.
    fn executed(stream: &[u8]) -> (BytesMut, Vec<Batch>) {
        let mut reader = PackReader::new(LIMITS.pack_bytes);
        reader.buffer().room().extend_from_slice(stream);
        let mut responder = Responder::new(Arc::new(Registry::new(&AVRO_SOURCE)));
        let mut keeper = Keeper::<false>::default();
        let mut out = BytesMut::new();
        while let Some(pack) = reader.next_pack().expect("packs") {
            if let Opened::Call(call) = responder.open(pack, &mut out).expect("a handshake") {
                let result = keeper.execute(&call);
                call.answer(&mut out, result.as_deref().map_err(String::as_str));
            }
        }
        (out, keeper.batches)
    }

    /// The same over a stream that takes so many bytes at once and comes in pieces.
    async fn served<const ENDS: bool>(
        stream: &[u8],
        answers: usize,
        pipe: usize,
        cuts: &[usize],
    ) -> (Vec<u8>, Vec<Batch>) {
        let (client, mut server) = duplex(pipe);
        let (mut from, mut to) = tokio::io::split(client);
        let mut keeper = Keeper::<ENDS>::default();
        let (registry, stop) = (Arc::new(Registry::new(&AVRO_SOURCE)), CancellationToken::new());
        let serving = serve(&mut server, &mut keeper, registry, &LIMITS, &stop);
        let mut received = vec![0; answers];
        let asking = async {
            let sending = async {
                let mut rest = stream;
                for cut in cuts.iter().cycle() {
                    let (piece, after) = rest.split_at((*cut).min(rest.len()));
                    to.write_all(piece).await.expect("the server reads");
                    tokio::task::yield_now().await;
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
            };
            tokio::join!(sending, async { from.read_exact(&mut received).await.expect("all answers") });
            to.shutdown().await.expect("the server is there");
            assert_eq!(from.read(&mut [0]).await.expect("the server closes"), 0, "nothing more was asked");
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.expect("the client leaves in order");
        (received, keeper.batches)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn requests_mean_the_same_however_their_stream_is_cut(
            stream in requests(),
            pipe in 1usize..20_000,
            cuts in prop::collection::vec(1usize..10_000, 1..20),
        ) {
            let (answers, batches) = executed(&stream);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let (first, second) = runtime.block_on(async {
                let first = served::<false>(&stream, answers.len(), pipe, &cuts).await;
                (first, served::<true>(&stream, answers.len(), pipe, &cuts).await)
            });
            for (received, kept) in [first, second] {
                prop_assert_eq!(&received, &answers);
                prop_assert_eq!(&kept, &batches);
            }
        }
    }
}
