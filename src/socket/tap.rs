//! A socket on its way through HTTP and WebSocket, and what those do not tell of
//! it: whether bytes leave that had to wait, and an end that loses nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::limits;

/// How much is read at once of what nobody wants.
const DISCARD_BYTES: usize = 4 * 1024;

/// A handle to one socket; the socket itself is [`Tapped`].
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<State>);

#[derive(Default)]
struct State {
    /// The kernel took nothing at the last write.
    is_full: AtomicBool,
    /// How often it then took something again.
    taken: AtomicU64,
    /// What is flushed next is the last.
    ends: AtomicBool,
}

impl Tap {
    /// A number that changes when the peer has taken some of what the kernel held
    /// for it, so that the kernel took more: the peer reads, however slowly.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// All is said. The next flush tells the peer so (its reads end, its writes
    /// do not fail), and lasts until the peer has ended too. What it still sends
    /// is thrown away: a socket closed on top of that would be reset, and what
    /// was said last be lost with it.
    pub(crate) fn end(&self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }
}

pub(crate) struct Tapped {
    stream: TcpStream,
    tap: Tap,
    is_shut: bool,
}

impl Tapped {
    /// That socket, with its handle.
    pub(crate) fn new(stream: TcpStream) -> (Self, Tap) {
        // A peer's progress shows when the kernel takes more; a socket that
        // cannot be set so still works.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(limits::KERNEL_UNSENT_BYTES);
        let tap = Tap::default();
        (Self { stream, tap: tap.clone(), is_shut: false }, tap)
    }

    fn note<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let State { is_full, taken, .. } = &*self.tap.0;
        match written {
            Poll::Pending => is_full.store(true, Ordering::Relaxed),
            Poll::Ready(_) if is_full.load(Ordering::Relaxed) => {
                is_full.store(false, Ordering::Relaxed);
                taken.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        let mut bytes = [0; DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tap.0.ends.load(Ordering::Relaxed) {
            return self.poll_end(cx);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether a peer that is behind comes forward, as [`Tap::taken`] tells.
#[derive(Debug)]
pub(crate) struct Progress {
    taken: u64,
    looks: u32,
}

impl Progress {
    /// Looks in a row without a change after which there is none.
    pub(crate) const LOOKS: u32 = 8;

    /// Begins with what it has taken before.
    pub(crate) fn after(taken: u64) -> Self {
        Self { taken, looks: 0 }
    }

    /// Looks; whether it has stood still for too long.
    pub(crate) fn is_over(&mut self, taken: u64) -> bool {
        if taken != self.taken {
            *self = Self::after(taken);
            return false;
        }
        self.looks += 1;
        self.looks >= Self::LOOKS
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Tapped, Tap, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (tapped, tap) = Tapped::new(accepted.expect("accepted").0);
        (tapped, tap, peer.expect("connected"))
    }

    #[test]
    fn only_a_peer_that_takes_nothing_look_after_look_is_over() {
        let mut progress = Progress::after(3);
        for round in 4..100 {
            for _ in 1..Progress::LOOKS {
                assert!(!progress.is_over(round - 1));
            }
            assert!(!progress.is_over(round), "it took a little");
        }
        for _ in 1..Progress::LOOKS {
            assert!(!progress.is_over(99));
        }
        assert!(progress.is_over(99));
    }

    #[tokio::test]
    async fn what_a_peer_takes_of_what_waits_is_counted_and_nothing_else() {
        let (mut tapped, tap, mut peer) = pair().await;
        tapped.write_all(b"no one waits").await.expect("open");
        assert_eq!(tap.taken(), 0);
        let filled = vec![0; 64 * 1024];
        let is_full = |tapped: &mut Tapped, cx: &mut Context<'_>| {
            Pin::new(tapped).poll_write(cx, &filled).is_pending()
        };
        poll_fn(|cx| {
            while !is_full(&mut tapped, cx) {}
            Poll::Ready(())
        })
        .await;
        assert_eq!(tap.taken(), 0, "the kernel took it, not the peer");
        let mut read = vec![0; 64 * 1024];
        let reads = async {
            loop {
                assert!(peer.read(&mut read).await.expect("open") > 0);
            }
        };
        tokio::select! {
            () = reads => {}
            written = tapped.write_all(b"more") => written.expect("open"),
        }
        assert_eq!(tap.taken(), 1);
    }

    #[tokio::test]
    async fn an_end_reaches_the_peer_at_once_and_takes_what_it_still_sends() {
        let (mut tapped, tap, mut peer) = pair().await;
        peer.write_all(&[7; 1000]).await.expect("open");
        tapped.write_all(b"last words").await.expect("open");
        tap.end();
        let peer = async {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.expect("no reset");
            assert_eq!(heard, b"last words");
            for _ in 0..100 {
                peer.write_all(&[7; 10_000]).await.expect("it is taken");
            }
            drop(peer);
        };
        let (flushed, ()) = tokio::join!(tapped.flush(), peer);
        flushed.expect("the peer has ended");
    }
}
