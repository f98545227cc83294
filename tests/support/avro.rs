//! Both ends of an Avro RPC connection, step by step.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::BytesMut;
use flume_rs::event::{Batch, Event};
use flume_rs::rpc::avro::datum::{Reader, put_bytes};
use flume_rs::rpc::avro::events::{put_array, put_items};
use flume_rs::rpc::avro::handshake::{HandshakeRequest, HandshakeResponse, Hash, Match, Outcome};
use flume_rs::rpc::avro::pack::{Pack, put_request};
use flume_rs::rpc::avro::protocol::{AVRO_SOURCE, Registry};
use flume_rs::rpc::avro::responder::{Call, Opened, Responder};
use flume_rs::rpc::avro::status;

use super::{Conversation, eventually};

/// What a source says to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The events are in the channels.
    Ok,
    /// They are not.
    Failed,
    /// The call was not executed.
    Error(String),
}

/// Events without headers.
pub fn batch<B: ToString>(bodies: impl IntoIterator<Item = B>) -> Batch {
    bodies.into_iter().map(|body| Event::new(body.to_string())).collect()
}

/// The parameter of `appendBatch`.
pub fn array(batch: &Batch) -> Vec<u8> {
    let mut parameters = Vec::new();
    put_array(&mut parameters, batch);
    parameters
}

/// A handshake of a client that takes the server for what it is.
pub fn greeting(client_hash: Hash, client_protocol: Option<&str>) -> Vec<u8> {
    let mut greeting = Vec::new();
    let client_protocol = client_protocol.map(str::to_owned);
    HandshakeRequest { client_hash, client_protocol, server_hash: AVRO_SOURCE.hash }.put(&mut greeting);
    greeting
}

/// A request as it is sent.
pub fn request(serial: u32, greeting: &[u8], message: &str, parameters: &[u8]) -> Vec<u8> {
    let mut head = greeting.to_vec();
    // No metadata.
    head.push(0);
    put_bytes(&mut head, message);
    let mut out = BytesMut::new();
    put_request(&mut out, serial, &head, parameters);
    out.to_vec()
}

/// The first request of a client, which appends one event.
pub fn first_append(body: &str) -> Vec<u8> {
    let mut parameters = Vec::new();
    put_items(&mut parameters, &batch([body]));
    request(1, &greeting(AVRO_SOURCE.hash, None), "append", &parameters)
}

fn next_pack(peer: &mut Conversation) -> io::Result<Pack> {
    let (serial, buffers) = (next_number(peer)?, next_number(peer)?);
    let mut message = Vec::new();
    for _ in 0..buffers {
        let mut buffer = vec![0; next_number(peer)? as usize];
        peer.try_bytes(&mut buffer)?;
        message.extend(buffer);
    }
    Ok(Pack { serial, message: message.into() })
}

fn next_number(peer: &mut Conversation) -> io::Result<u32> {
    let mut bytes = [0; 4];
    peer.try_bytes(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

/// A client of an avro source.
pub struct AvroClient {
    /// The connection.
    pub peer: Conversation,
    greeting: Vec<u8>,
    /// The last request's number.
    sent: u32,
    /// The last answer's.
    answered: u32,
}

impl AvroClient {
    /// Connects.
    pub fn with(port: u16) -> Self {
        Self::over(Conversation::with(port))
    }

    /// Over a connection on which nothing has been said.
    pub fn over(peer: Conversation) -> Self {
        Self { peer, greeting: greeting(AVRO_SOURCE.hash, None), sent: 0, answered: 0 }
    }

    /// Introduces itself with something else.
    pub fn greeting(mut self, greeting: Vec<u8>) -> Self {
        self.greeting = greeting;
        self
    }

    /// Sends a request and waits for nothing.
    pub fn send(&mut self, message: &str, parameters: &[u8]) {
        self.try_send(message, parameters).expect("the peer reads");
    }

    fn try_send(&mut self, message: &str, parameters: &[u8]) -> io::Result<()> {
        self.sent += 1;
        // The handshake comes along with the first one.
        let greeting = std::mem::take(&mut self.greeting);
        self.peer.try_send(request(self.sent, &greeting, message, parameters))
    }

    /// Sends events and waits for nothing.
    pub fn send_batch(&mut self, batch: &Batch) {
        self.send("appendBatch", &array(batch));
    }

    /// The next answer, which is to the oldest request that has none.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("the peer answers")
    }

    fn try_answer(&mut self) -> io::Result<Answer> {
        let pack = next_pack(&mut self.peer)?;
        self.answered += 1;
        assert_eq!(pack.serial, self.answered, "answers come in order");
        let mut reader = Reader::new(&pack.message);
        if pack.serial == 1 {
            let response = HandshakeResponse::read(&mut reader).expect("a handshake");
            assert_eq!(response.matched, Match::Both);
        }
        Ok(outcome(&pack, &mut reader))
    }

    /// The next answer, with the handshake that it must have, and nothing where that is all.
    pub fn introduced(&mut self) -> (HandshakeResponse, Option<Answer>) {
        let pack = next_pack(&mut self.peer).expect("the peer answers");
        self.answered = pack.serial;
        let mut reader = Reader::new(&pack.message);
        let response = HandshakeResponse::read(&mut reader).expect("a handshake");
        let answer = (reader.remaining() > 0).then(|| outcome(&pack, &mut reader));
        (response, answer)
    }

    /// Sends events and waits for the answer.
    pub fn append_batch(&mut self, batch: &Batch) -> Answer {
        self.send_batch(batch);
        self.answer()
    }

    /// The same with a peer that may go at any moment.
    pub fn try_append_batch(&mut self, batch: &Batch) -> io::Result<Answer> {
        self.try_send("appendBatch", &array(batch))?;
        self.try_answer()
    }

    /// Sends one event by `append` and waits for the answer.
    pub fn append(&mut self, body: &str) -> Answer {
        let mut parameters = Vec::new();
        put_items(&mut parameters, &batch([body]));
        self.send("append", &parameters);
        self.answer()
    }
}

fn outcome(pack: &Pack, reader: &mut Reader<'_>) -> Answer {
    match Outcome::read(&pack.message, reader).expect("an answer") {
        Outcome::Result(datum) if datum == status::OK => Answer::Ok,
        Outcome::Result(datum) if datum == status::FAILED => Answer::Failed,
        Outcome::Result(datum) => panic!("no status: {datum:?}"),
        Outcome::Error(text) => Answer::Error(text),
    }
}

/// A place that sinks connect to.
pub struct AvroServer {
    listener: TcpListener,
}

impl AvroServer {
    /// On a port of the system's choice.
    pub fn new() -> Self {
        Self::at(0)
    }

    /// On a port.
    pub fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        listener.set_nonblocking(true).expect("the option can be set");
        Self { listener }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// The next connection.
    pub fn accept(&self) -> AvroPeer {
        let (stream, _) = eventually(|| self.listener.accept().ok()).expect("the sink connects");
        stream.set_nonblocking(false).expect("the option can be set");
        let responder = Responder::new(Arc::new(Registry::new(&AVRO_SOURCE)));
        AvroPeer { peer: Conversation::over(stream), responder }
    }
}

/// A sink's connection.
pub struct AvroPeer {
    /// The connection.
    pub peer: Conversation,
    responder: Responder,
}

impl AvroPeer {
    /// The next request, and the bodies of its events.
    pub fn request(&mut self) -> (Call, Vec<String>) {
        let pack = next_pack(&mut self.peer).expect("the peer asks");
        let opened = self.responder.open(pack, &mut BytesMut::new()).expect("a handshake");
        let Opened::Call(call) = opened else { panic!("no call: {opened:?}") };
        let events = call.events("events").expect("events");
        let bodies = events.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned());
        (call, bodies.collect())
    }

    /// Answers it.
    pub fn answer(&mut self, call: &Call, status: &[u8]) {
        let mut out = BytesMut::new();
        call.answer(&mut out, Ok(status));
        self.peer.send(&out);
    }
}
