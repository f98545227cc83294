//! A connection at the server's side, whatever is spoken on it.
//!
//! [`serve`] reads requests, has a [`Service`] execute them in their order, and sends the answers in that order, those of
//! pipelined requests together. A client can hold up nobody but itself: a request that is coming in has a time limit and
//! a share of the server's [memory](super::memory), answers that are not read have a time limit, and a call goes on even
//! while they wait.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::memory::{Memory, Share};
use crate::net::{self, Stream};
use crate::read_buffer::ReadBuffer;

/// So many bytes of answers are sent before more calls are read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// So much room for answers is kept between them.
const KEPT_BYTES: usize = 4 << 10;
/// Whoever is slower than so many bytes a second, over the time that everybody has, is too slow.
const LEAST_RATE: usize = 64 << 10;

/// Cuts a stream into requests.
pub trait Framing: Send {
    /// A whole request.
    type Frame: Send;
    /// Why bytes are no request.
    type Error;

    /// Where bytes from the stream go.
    fn buffer(&mut self) -> &mut ReadBuffer;

    /// The next whole request, when it is there.
    fn next_frame(&mut self) -> Result<Option<Self::Frame>, Self::Error>;
}

/// What a server does with requests. Each connection has its own.
pub trait Service: Send {
    /// Whether a client that closes its sending side is gone, even while a call of its is being executed. Otherwise it
    /// gets its answer first.
    const ENDS_WITH_INPUT: bool;
    /// How requests are framed.
    type Framing: Framing;
    /// A request that is to be executed.
    type Call: Send + Sync;
    /// What comes of it.
    type Reply: Send;
    /// Why a connection cannot go on.
    type Fault: From<<Self::Framing as Framing>::Error> + Send;

    /// Reads a request. What needs no execution is answered at once, into `out`.
    fn open(
        &mut self,
        frame: <Self::Framing as Framing>::Frame,
        out: &mut BytesMut,
    ) -> Result<Option<Self::Call>, Self::Fault>;

    /// Executes a call. One that waits must hear the stop itself.
    fn execute(&mut self, call: &mut Self::Call) -> impl Future<Output = Self::Reply> + Send;

    /// Writes the answer to a call.
    fn answer(&mut self, call: &Self::Call, reply: Self::Reply, out: &mut BytesMut);

    /// Hears why the connection ends before its time, while the client has not heard it yet.
    fn lost(&mut self, why: ConnectionError<Self::Fault>);
}

/// Why a connection ended before its time.
#[derive(Debug, Error)]
pub enum ConnectionError<F> {
    /// The network's reason.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no request.
    #[error("{0}")]
    Fault(F),
    /// The client left in the middle of a request.
    #[error("closed in the middle of a message, {0} bytes into it")]
    Truncated(usize),
    /// The client takes too long to send a request.
    #[error("too slow: only {bytes} bytes of a message came in {limit:?}")]
    Slow {
        /// What came of it.
        bytes: usize,
        /// The time that it had.
        limit: Duration,
    },
    /// The client does not read its answers.
    #[error("it has not read its answers for {0:?}")]
    Unread(Duration),
}

/// What a server allows its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub request_bytes: usize,
    /// How long a request may take from its first byte to its last, and the answers that are due to be read, with a
    /// second more for each 64 KiB.
    pub timeout: Duration,
}

impl Limits {
    fn time_for(&self, bytes: usize) -> Duration {
        self.timeout + Duration::from_secs((bytes / LEAST_RATE) as u64)
    }
}

/// Serves one connection. Ends with the client, or once the answers due are out when it is told to stop.
pub async fn serve<T: Stream, S: Service>(
    stream: &mut T,
    framing: S::Framing,
    service: &mut S,
    limits: &Limits,
    memory: &Memory,
    stop: &CancellationToken,
) {
    let (out, share) = (BytesMut::new(), memory.share());
    let mut connection = Connection { stream, framing, out, limits, share, begun: None, stop };
    let outcome = connection.converse(service).await;
    let in_order = outcome.is_ok();
    if let Err(why) = outcome {
        service.lost(why);
    }
    // What has been executed is answered even now, unless the client does not read.
    let goodbye = async {
        flush(connection.stream, &mut connection.out).await?;
        if in_order { connection.stream.shutdown().await } else { net::close_gently(connection.stream).await }
    };
    timeout(net::LAST_ANSWERS, goodbye).await.ok();
}

struct Connection<'a, T, F> {
    stream: &'a mut T,
    framing: F,
    /// Answers that are not sent yet.
    out: BytesMut,
    limits: &'a Limits,
    share: Share<'a>,
    /// Since when there is a part of a request.
    begun: Option<Instant>,
    stop: &'a CancellationToken,
}

impl<T: Stream, F: Framing> Connection<'_, T, F> {
    async fn converse<S: Service<Framing = F>>(&mut self, service: &mut S) -> Result<(), ConnectionError<S::Fault>> {
        let fault = |error| ConnectionError::Fault(S::Fault::from(error));
        while !self.stop.is_cancelled() {
            match self.framing.next_frame().map_err(fault)? {
                Some(frame) => {
                    self.begun = None;
                    let call = service.open(frame, &mut self.out).map_err(ConnectionError::Fault)?;
                    if let Some(call) = call
                        && !self.execute(service, call).await?
                    {
                        return Ok(());
                    }
                }
                None => {
                    self.send().await?;
                    if !self.read().await? {
                        return Ok(());
                    }
                    tokio::task::consume_budget().await;
                }
            }
            if self.out.len() > MAX_ANSWER_BYTES {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Reads more. `false` when nothing more comes, or the server stops.
    async fn read<E>(&mut self) -> Result<bool, ConnectionError<E>> {
        let Self { stream, framing, limits, share, begun, stop, .. } = self;
        let buffer = framing.buffer();
        let bytes = buffer.pending().len();
        let read = async {
            share.fit(bytes).await;
            read(*stream, buffer).await
        };
        let read = async {
            if bytes == 0 {
                return Ok::<_, ConnectionError<E>>(read.await?);
            }
            let limit = limits.time_for(bytes);
            let end = *begun.get_or_insert_with(Instant::now) + limit;
            Ok(timeout_at(end, read).await.map_err(|_| ConnectionError::Slow { bytes, limit })??)
        };
        match stop.run_until_cancelled(read).await {
            None => Ok(false),
            Some(Ok(0)) if bytes > 0 => Err(ConnectionError::Truncated(bytes)),
            Some(read) => Ok(read? > 0),
        }
    }

    /// Executes a call. If it has to wait for anything, the answers before it go out meanwhile. `false` when the client
    /// is gone, and with it the call.
    async fn execute<S: Service<Framing = F>>(
        &mut self,
        service: &mut S,
        mut call: S::Call,
    ) -> Result<bool, ConnectionError<S::Fault>> {
        let mut sent = Ok(());
        let reply = {
            let mut result = pin!(service.execute(&mut call));
            tokio::select! {
                biased;
                reply = &mut result => reply,
                outcome = self.send() => match outcome {
                    Ok(()) if S::ENDS_WITH_INPUT => tokio::select! {
                        biased;
                        reply = result => reply,
                        gone = self.watch() => return Ok(gone.map(|()| false)?),
                    },
                    Err(error) if S::ENDS_WITH_INPUT => return Err(error),
                    // Even for a client that is gone: half a call is worth nothing.
                    outcome => {
                        sent = outcome;
                        result.await
                    }
                },
            }
        };
        service.answer(&call, reply, &mut self.out);
        sent.map(|()| true)
    }

    /// Waits until the client has closed its side; what it sends until then is kept, up to a limit.
    async fn watch(&mut self) -> io::Result<()> {
        while self.framing.buffer().pending().len() < MAX_ANSWER_BYTES {
            if read(self.stream, self.framing.buffer()).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    /// Sends the answers, unless the server stops. Cut off, it can go on.
    async fn send<E>(&mut self) -> Result<(), ConnectionError<E>> {
        let limit = self.limits.time_for(self.out.len());
        let sent = timeout(limit, flush(self.stream, &mut self.out));
        match self.stop.run_until_cancelled(sent).await {
            None => return Ok(()),
            Some(Err(_)) => return Err(ConnectionError::Unread(limit)),
            Some(Ok(sent)) => sent?,
        }
        if self.out.capacity() > KEPT_BYTES {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}

/// Reads what is there; 0 at the end. A peer that ends its session without a word of TLS has ended it all the same.
async fn read(stream: &mut impl Stream, buffer: &mut ReadBuffer) -> io::Result<usize> {
    match buffer.read_from(stream).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

/// Sends what is there. Cut off, the rest is still there, and what has been written is flushed by the next one.
async fn flush(stream: &mut impl Stream, out: &mut BytesMut) -> io::Result<()> {
    stream.write_all_buf(out).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use bytes::{BufMut as _, Bytes};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, ReadBuf, duplex};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::rpc::thrift::{FrameError, FrameReader};

    const MINUTE: Limits = Limits { request_bytes: 1 << 20, timeout: Duration::from_secs(60) };
    const MOMENT: Limits = Limits { timeout: Duration::from_millis(50), ..MINUTE };
    /// Nothing here takes so long.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Gives back what it gets; each call beyond the first waits for a permit, and is counted when it has it.
    struct Echo {
        permits: Arc<Semaphore>,
        calls: usize,
        done: Arc<Semaphore>,
        lost: Option<ConnectionError<FrameError>>,
    }

    impl Echo {
        fn new(permits: usize) -> Self {
            Self { permits: Arc::new(Semaphore::new(permits)), calls: 0, done: Arc::new(Semaphore::new(0)), lost: None }
        }
    }

    impl Service for Echo {
        const ENDS_WITH_INPUT: bool = false;
        type Framing = FrameReader;
        type Call = Bytes;
        type Reply = ();
        type Fault = FrameError;

        fn open(&mut self, frame: Bytes, _out: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
            Ok(Some(frame))
        }

        async fn execute(&mut self, _call: &mut Bytes) {
            self.calls += 1;
            if self.calls > 1 {
                tokio::task::yield_now().await;
                self.permits.acquire().await.expect("it is open").forget();
            }
            self.done.add_permits(1);
        }

        fn answer(&mut self, call: &Bytes, (): (), out: &mut BytesMut) {
            out.put_slice(call);
        }

        fn lost(&mut self, why: ConnectionError<FrameError>) {
            self.lost = Some(why);
        }
    }

    async fn served(
        stream: &mut impl Stream,
        service: &mut Echo,
        limits: &Limits,
    ) -> Result<(), ConnectionError<FrameError>> {
        let framing = FrameReader::new(limits.request_bytes);
        let memory = Memory::for_requests(limits.request_bytes);
        let stop = CancellationToken::new();
        let serving = serve(stream, framing, service, limits, &memory, &stop);
        timeout(DEADLINE, serving).await.expect("the connection ends");
        service.lost.take().map_or(Ok(()), Err)
    }

    fn frame(bytes: usize) -> Vec<u8> {
        [&(bytes as u32).to_be_bytes()[..], &vec![b'x'; bytes]].concat()
    }

    #[tokio::test]
    async fn a_call_goes_on_while_nobody_reads_the_answers_before_it() {
        let (mut client, mut server) = duplex(1000);
        let mut echo = Echo::new(1);
        let done = Arc::clone(&echo.done);
        let client = async {
            // The first answer does not fit the pipe.
            for bytes in [5000, 10] {
                client.write_all(&frame(bytes)).await.expect("the server reads");
            }
            timeout(DEADLINE, done.acquire_many(2)).await.expect("both calls end").expect("it is open").forget();
            // It reads in the end, and gets everything.
            let mut answers = vec![0; 5010];
            client.read_exact(&mut answers).await.expect("answers");
            client.shutdown().await.expect("the server is there");
        };
        let (outcome, ()) = tokio::join!(served(&mut server, &mut echo, &MINUTE), client);
        outcome.expect("the client leaves in order");
    }

    #[tokio::test]
    async fn whoever_does_not_read_has_a_time_limit() {
        let (mut client, mut server) = duplex(1000);
        client.write_all(&frame(900)).await.expect("the pipe has room");
        // Its answers and another request's: more than the pipe takes.
        let client = async {
            client.write_all(&frame(900)).await.expect("the server reads");
            std::future::pending::<()>().await;
        };
        let mut echo = Echo::new(10);
        let outcome = tokio::select! {
            outcome = served(&mut server, &mut echo, &MOMENT) => outcome,
            () = client => unreachable!("it waits"),
        };
        assert!(matches!(outcome, Err(ConnectionError::Unread(_))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_request_that_comes_byte_by_byte_has_a_time_limit_for_all_of_it() {
        let (mut client, mut server) = duplex(1000);
        let client = async {
            for byte in frame(1_000_000) {
                client.write_all(&[byte]).await.expect("the server is there");
                tokio::time::sleep(MOMENT.timeout / 10).await;
            }
        };
        let mut echo = Echo::new(0);
        let outcome = tokio::select! {
            outcome = served(&mut server, &mut echo, &MOMENT) => outcome,
            () = client => unreachable!("it takes too long"),
        };
        assert!(matches!(outcome, Err(ConnectionError::Slow { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_silent_client_may_stay_between_requests() {
        let (mut client, mut server) = duplex(1000);
        let client = async {
            let mut answer = [0; 10];
            client.write_all(&frame(10)).await.expect("the server reads");
            client.read_exact(&mut answer).await.expect("an answer");
            tokio::time::sleep(3 * MOMENT.timeout).await;
            drop(client);
        };
        let mut echo = Echo::new(0);
        let (outcome, ()) = tokio::join!(served(&mut server, &mut echo, &MOMENT), client);
        outcome.expect("nothing is wrong");
    }

    /// Ends as a TLS session without a goodbye does, and takes no flush at once.
    struct Rude {
        inner: DuplexStream,
        unflushed: bool,
    }

    impl AsyncRead for Rude {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let before = buf.filled().len();
            match Pin::new(&mut self.inner).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() == before => {
                    Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                }
                other => other,
            }
        }
    }

    impl AsyncWrite for Rude {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.unflushed = true;
            Pin::new(&mut self.inner).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::take(&mut self.unflushed) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn an_end_without_a_goodbye_is_an_end_between_requests_and_a_fault_within_one() {
        for (bytes, whole) in [(frame(10), true), (frame(10)[..7].to_vec(), false)] {
            let (mut client, server) = duplex(1000);
            client.write_all(&bytes).await.expect("the pipe has room");
            client.shutdown().await.expect("the server is there");
            let mut server = Rude { inner: server, unflushed: false };
            let outcome = served(&mut server, &mut Echo::new(0), &MINUTE).await;
            match whole {
                true => assert!(outcome.is_ok(), "{outcome:?}"),
                false => assert!(matches!(outcome, Err(ConnectionError::Truncated(7))), "{outcome:?}"),
            }
        }
    }
}
