//! Connections that can be broken from inside a handler.
//!
//! Owns the listener's wrapper. A cut connection fails on its next read or write, so the caller sees it closed in the
//! middle of an exchange, as when a load balancer or a process dies.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug)]
pub(crate) struct Cuttable<T> {
    inner: T,
    cut: Arc<AtomicBool>,
}

/// The other end of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    cut: Arc<AtomicBool>,
}

impl Peer {
    /// Nothing more is sent or read.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }
}

impl Cuttable<TcpListener> {
    pub fn new(listener: TcpListener) -> Self {
        Self { inner: listener, cut: Arc::default() }
    }
}

impl Listener for Cuttable<TcpListener> {
    type Io = Cuttable<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, _): (TcpStream, SocketAddr) = Listener::accept(&mut self.inner).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let cut = Arc::<AtomicBool>::default();
        (Cuttable { inner: stream, cut: Arc::clone(&cut) }, Peer { cut })
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { cut: Arc::clone(&self.cut) })
    }
}

impl Connected<IncomingStream<'_, Cuttable<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Cuttable<TcpListener>>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Cuttable<TcpStream> {
    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cuttable<TcpStream> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cuttable<TcpStream> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
