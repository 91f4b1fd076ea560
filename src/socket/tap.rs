//! A socket on its way through HTTP and WebSocket, and what those do not tell of
//! it: whether bytes leave that had to wait, how much comes at once from whom, and an end
//! that loses nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::limits;

/// How much is read at once of what nobody wants.
const DISCARD_BYTES: usize = 4 * 1024;

/// A handle to one socket; the socket itself is [`Tapped`].
#[derive(Clone)]
pub(crate) struct Tap(Arc<State>);

struct State {
    /// Bytes that may come until more are allowed.
    readable: AtomicUsize,
    /// The kernel took nothing at the last write.
    is_full: AtomicBool,
    /// How often it then took something again.
    taken: AtomicU64,
    /// What is flushed next is the last.
    ends: AtomicBool,
}

impl Tap {
    fn new() -> Self {
        Self(Arc::new(State {
            readable: AtomicUsize::new(usize::MAX),
            is_full: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        }))
    }

    /// From now on a message of so many bytes may come, in pieces too. The library knows one
    /// bound for all sockets, and keeps what it has of a message: a peer that may say less
    /// than others would make it keep as much. Said anew after each message.
    pub(crate) fn allow(&self, message_bytes: usize) {
        // What is around each piece, and what is read ahead of the next.
        let around = message_bytes / 4 + 2 * limits::READ_BUFFER_BYTES;
        self.0.readable.store(message_bytes + around, Ordering::Relaxed);
    }

    /// Whether an error of the socket is that more came than was allowed.
    pub(crate) fn is_too_much(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::FileTooLarge
    }

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
        let tap = Tap::new();
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
        let readable = self.tap.0.readable.load(Ordering::Relaxed);
        if readable == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if readable != usize::MAX {
            let read = buffer.filled().len() - before;
            self.tap.0.readable.store(readable.saturating_sub(read), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
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
    async fn no_more_is_read_than_is_allowed_and_what_is_allowed_anew() {
        let (mut tapped, tap, mut peer) = pair().await;
        peer.write_all(&[7; 60_000]).await.expect("taken");
        let mut bytes = [0; 1_000];
        tap.allow(10_000);
        let mut read = 0;
        let error = loop {
            match tapped.read(&mut bytes).await {
                Ok(more) => read += more,
                Err(error) => break error,
            }
        };
        assert!(Tap::is_too_much(&error), "{error}");
        assert!((10_000..20_000).contains(&read), "{read}");
        tap.allow(100);
        assert!(tapped.read(&mut bytes).await.expect("allowed") > 0);
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
