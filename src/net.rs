//! Listening sockets and their connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 4096;
/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long what is still to be said to a client may take when its connection ends.
pub const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long a client's name is looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Names that are looked up at once: each holds a thread until the resolver answers.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Closes a connection whose client may still be sending: with unread input in the socket the kernel would reset the
/// connection and could take the last answer along. What comes is read and dropped for a moment.
pub async fn close_gently(stream: &mut impl Stream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut dropped = vec![0; 4 << 10];
    let drain = async { while matches!(stream.read(&mut dropped).await, Ok(1..)) {} };
    // Whether the client closes in time makes no difference.
    tokio::time::timeout(LAST_ANSWERS, drain).await.ok();
    Ok(())
}

/// An address of a host: an IPv4 one when there is one, as Java takes it for Flume, so that `localhost` is 127.0.0.1.
pub async fn address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    address.copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

/// Listens on a host name or address.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let address = address(host, port).await?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens on a host name or address, or without one on all interfaces.
pub async fn listen_on(host: Option<&str>, port: u16) -> io::Result<TcpListener> {
    match host {
        Some(host) => listen(host, port).await,
        None => match listen("::", port).await {
            // Both families where there are both.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => listen("0.0.0.0", port).await,
            listening => listening,
        },
    }
}

/// A client's address as Java writes it: no zeros of an IPv6 address are left out.
pub fn java_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:x}")).join(":"),
    }
}

/// A host's name, or its address where it has none, as Java gives it, or none that is found in time.
pub async fn host_name(address: IpAddr) -> String {
    name_of(address.to_canonical(), LOOKUP_TIMEOUT).await
}

async fn name_of(address: IpAddr, limit: Duration) -> String {
    let lookup = async {
        let permit = LOOKUPS.acquire().await.ok()?;
        let found = tokio::task::spawn_blocking(move || {
            // Given back when the thread is free again, which may be long after anybody waits for it.
            let _permit = permit;
            dns_lookup::lookup_addr(&address)
        });
        found.await.ok()?.ok()
    };
    tokio::time::timeout(limit, lookup).await.ok().flatten().unwrap_or_else(|| java_address(address))
}

/// Accepts connections until it is told to stop, closes the port, and waits for the connections to end. Each is served
/// in a task of its own, at most `limit` at once; more clients wait in the kernel's queue. `component` is who listens,
/// for messages.
pub async fn serve<F>(
    listener: TcpListener,
    component: &str,
    limit: usize,
    stop: &CancellationToken,
    mut connection: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let room = Arc::clone(&room).acquire_owned().await;
            (room, listener.accept().await)
        };
        let Some((room, accepted)) = stop.run_until_cancelled(next).await else { break };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                // A client whose machine is gone is noticed in the end, even if nothing is to be sent to it.
                if let Err(error) = SockRef::from(&stream).set_keepalive(true) {
                    debug!("{component}: {peer} gets no keep-alive: {error}");
                }
                // What comes by IPv4 to a socket of both has its own address.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let served = connection(stream, peer);
                connections.spawn(async move {
                    let _room = room;
                    served.await;
                });
            }
            Err(error) => {
                warn!("{component}: could not accept a connection: {error}");
                stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_finds_no_thread_to_be_looked_up_by_goes_by_its_address() {
        let all = LOOKUPS.acquire_many(LOOKUPS.available_permits() as u32).await.expect("it is open");
        assert_eq!(name_of(IpAddr::from([127, 0, 0, 1]), Duration::from_millis(1)).await, "127.0.0.1");
        drop(all);
    }

    #[tokio::test]
    async fn clients_are_known_by_their_own_address_and_kept_alive() {
        let listener = listen("::", 0).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let stop = CancellationToken::new();
        let (seen, mut clients) = tokio::sync::mpsc::unbounded_channel();
        let serving = serve(listener, "test", 1, &stop, |stream, peer| {
            let keepalive = SockRef::from(&stream).keepalive().expect("the option can be read");
            seen.send((peer.ip(), keepalive)).expect("somebody listens");
            async {}
        });
        let client = async {
            TcpStream::connect(("127.0.0.1", port)).await.expect("the port accepts connections");
            let client = clients.recv().await.expect("a client");
            stop.cancel();
            client
        };
        let ((), (address, keepalive)) = tokio::join!(serving, client);
        assert_eq!(address, std::net::IpAddr::from([127, 0, 0, 1]));
        assert!(keepalive);
    }

    #[test]
    fn addresses_are_written_as_by_java() {
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::1", "0:0:0:0:0:0:0:1"),
            ("2001:db8::00ff", "2001:db8:0:0:0:0:0:ff"),
        ] {
            assert_eq!(java_address(address.parse().expect("an address")), expected);
        }
    }
}
