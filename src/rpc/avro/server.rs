//! Avro RPC at the server's side of a connection.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use bytes::BytesMut;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::pack::{Pack, PackError, PackReader};
use super::protocol::{Protocol, Registry};
use super::responder::{Call, HandshakeError, Opened, Responder};
use crate::net::Stream;
use crate::read_buffer::ReadBuffer;
use crate::rpc::memory::Memory;
use crate::rpc::server::{self, ConnectionError, Framing, Limits};

/// What a server does with calls. Each connection has its own.
pub trait Service: Send {
    /// Whether a client that closes its sending side is gone, even while a call of its is being executed. Otherwise it
    /// gets its answer first.
    const ENDS_WITH_INPUT: bool;

    /// Executes a call: the result's datum, or the text of an error. One that waits must hear the stop itself.
    fn call(&mut self, call: &Call) -> impl Future<Output = Result<Vec<u8>, String>> + Send;

    /// Hears of a message that was answered with an error without coming to a call.
    fn complain(&self, what: &dyn Display);

    /// Hears why the connection ends before its time, while the client has not heard it yet.
    fn lost(&self, why: &dyn Display);
}

/// Why what came is of no use.
#[derive(Debug, Error)]
pub enum Fault {
    /// It is no data pack.
    #[error("what came is not Avro RPC: {0}")]
    Pack(#[from] PackError),
    /// There was no agreement.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
}

/// What all connections of a server have in common.
#[derive(Debug)]
pub struct Server {
    /// What clients speak.
    pub registry: Arc<Registry>,
    /// What they may do.
    pub limits: Limits,
    /// What their requests take.
    pub memory: Memory,
}

impl Server {
    /// A server of a protocol.
    pub fn new(protocol: &'static Protocol, limits: Limits) -> Self {
        let memory = Memory::for_requests(limits.request_bytes);
        Self { registry: Arc::new(Registry::new(protocol)), limits, memory }
    }

    /// Serves one connection: calls are executed in the order in which they come, and answered in that order. Ends with
    /// the client, or once the answers due are out when it is told to stop.
    pub async fn serve<T: Stream, S: Service>(&self, stream: &mut T, service: &mut S, stop: &CancellationToken) {
        let packs = PackReader::new(self.limits.request_bytes);
        let mut callee = Callee { responder: Responder::new(Arc::clone(&self.registry)), service };
        server::serve(stream, packs, &mut callee, &self.limits, &self.memory, stop).await;
    }
}

impl Framing for PackReader {
    type Frame = Pack;
    type Error = PackError;

    fn buffer(&mut self) -> &mut ReadBuffer {
        self.buffer()
    }

    fn next_frame(&mut self) -> Result<Option<Pack>, PackError> {
        self.next_pack()
    }
}

/// One connection's side of the conversation.
struct Callee<'a, S> {
    responder: Responder,
    service: &'a mut S,
}

impl<S: Service> server::Service for Callee<'_, S> {
    const ENDS_WITH_INPUT: bool = S::ENDS_WITH_INPUT;
    type Framing = PackReader;
    type Call = Call;
    type Reply = Result<Vec<u8>, String>;
    type Fault = Fault;

    fn open(&mut self, pack: Pack, out: &mut BytesMut) -> Result<Option<Call>, Fault> {
        match self.responder.open(pack, out)? {
            Opened::Call(call) => return Ok(Some(call)),
            Opened::Answered => {}
            Opened::Refused(why) => self.service.complain(&why),
        }
        Ok(None)
    }

    async fn execute(&mut self, call: &mut Call) -> Result<Vec<u8>, String> {
        self.service.call(call).await
    }

    fn answer(&mut self, call: &Call, reply: Result<Vec<u8>, String>, out: &mut BytesMut) {
        call.answer(out, reply.as_deref().map_err(String::as_str));
    }

    fn lost(&mut self, why: ConnectionError<Fault>) {
        self.service.lost(&why);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    const LIMITS: Limits = Limits { request_bytes: 1 << 20, timeout: Duration::from_secs(60) };

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

        fn lost(&self, why: &dyn Display) {
            panic!("{why}");
        }
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
        let mut reader = PackReader::new(LIMITS.request_bytes);
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
        let (avro, stop) = (Server::new(&AVRO_SOURCE, LIMITS), CancellationToken::new());
        let serving = avro.serve(&mut server, &mut keeper, &stop);
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
        tokio::join!(serving, asking);
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
