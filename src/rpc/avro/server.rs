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
