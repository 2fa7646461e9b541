//! Sockets to be asked at.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::server::RequestHandler;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};

use crate::Error;

/// A TCP connection without a question is closed after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait for one slow TCP client.
const TCP_ANSWERS: usize = 32;
const TCP_BACKLOG: i32 = 128;

/// Makes the server answer on an address by UDP and TCP.
pub(crate) fn register<T: RequestHandler>(
    server: &mut Server<T>,
    address: SocketAddr,
) -> Result<(), Error> {
    let failed = |source| Error::Listen { address, source };
    let datagrams = open(address, SockType::Datagram, SockProtocol::Udp).map_err(failed)?;
    let datagrams = tokio::net::UdpSocket::from_std(datagrams.into()).map_err(failed)?;
    server.register_socket(datagrams);
    let streams = open(address, SockType::Stream, SockProtocol::Tcp).map_err(failed)?;
    let backlog = Backlog::new(TCP_BACKLOG).map_err(|errno| failed(errno.into()))?;
    listen(&streams, backlog).map_err(|errno| failed(errno.into()))?;
    let streams = tokio::net::TcpListener::from_std(streams.into()).map_err(failed)?;
    server.register_listener(streams, TCP_IDLE, TCP_ANSWERS);
    Ok(())
}

/// A bound socket. The address need not exist yet: the bridge that has it may
/// come up later.
fn open(address: SocketAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, protocol)?;
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    }
    use std::os::fd::AsRawFd;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}
