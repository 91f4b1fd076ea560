//! One peer of a run: sends what it is to send, checks what it gets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_tungstenite::tungstenite::Message;

use super::board::Board;
use super::frames::{Form, Heard, Stamp};
use super::outcome::BUCKET;
use super::wire::{Ended, Wire};
use crate::sealing::many;
use crate::sealing::{self, BoxKey};

/// A connected peer with all that it is going to send.
pub(super) struct Peer {
    /// The peer's place among all.
    pub(super) place: u32,
    pub(super) wire: Wire,
    pub(super) form: Form,
    /// The frames to send, sealed before the clock starts.
    pub(super) frames: std::vec::IntoIter<Message>,
    /// The keys that it shares with those who send to it.
    pub(super) boxes: HashMap<u32, BoxKey>,
    pub(super) in_flight: usize,
    /// Whether the peer confirms what it got.
    pub(super) confirms: bool,
}

/// What one peer noted.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) end_to_end_us: Vec<u32>,
    pub(super) ack_us: Vec<u32>,
    /// Deliveries by time since the start.
    pub(super) over_time: Vec<u64>,
    /// Deliveries after the same or a later one of their sender.
    pub(super) behind: u64,
    pub(super) unreadable: u64,
    pub(super) disconnected: bool,
    pub(super) problem: Option<String>,
}

impl Tally {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        self.problem.get_or_insert_with(text);
    }

    fn lost(&mut self, ended: &Ended) {
        self.disconnected = true;
        self.problem(|| format!("a connection ended: {} {}", ended.code, ended.reason));
    }
}

/// Where a peer stands.
#[derive(Default)]
struct Progress {
    sent: usize,
    answered: usize,
    /// The last number heard of each sender.
    last: HashMap<u32, u32>,
}

impl Peer {
    /// Runs until the board says that it is over.
    pub(super) async fn run(mut self, board: Arc<Board>) -> Tally {
        let mut tally = Tally::default();
        let mut progress = Progress::default();
        let mut heard = Vec::new();
        let sender = &board.senders[self.place as usize];
        let woken = board.paced() || board.until_delivered;
        let (go, over) = (board.go.cancelled(), board.over.cancelled());
        tokio::pin!(go, over);
        let mut started = Instant::now();
        let mut going = false;
        loop {
            if going {
                self.send_due(&board, &mut progress);
            }
            tokio::select! {
                biased;
                turned = self.wire.turn(&mut heard) => {
                    if let Err(ended) = turned {
                        tally.lost(&ended);
                        return tally;
                    }
                    board.heard.fetch_add(heard.len() as u64, Ordering::Relaxed);
                    let at = Instant::now();
                    for frame in heard.drain(..) {
                        self.take(&board, &frame, at, started, &mut progress, &mut tally);
                    }
                }
                () = sender.wake.notified(), if woken => {}
                () = &mut go, if !going => {
                    going = true;
                    started = Instant::now();
                }
                () = &mut over => return tally,
            }
        }
    }

    fn send_due(&mut self, board: &Board, progress: &mut Progress) {
        let sender = &board.senders[self.place as usize];
        let until = if board.paced() {
            sender.due.load(Ordering::Acquire) as usize
        } else if board.until_delivered {
            let complete = sender.complete.load(Ordering::Acquire) as usize;
            complete.min(progress.answered) + self.in_flight
        } else {
            progress.answered + self.in_flight
        };
        let at = Instant::now();
        while progress.sent < until
            && let Some(frame) = self.frames.next()
        {
            let number = u32::try_from(progress.sent).unwrap_or(u32::MAX);
            board.sent(Stamp { sender: self.place, number }, at);
            self.wire.queue(frame);
            progress.sent += 1;
        }
    }

    fn take(
        &mut self,
        board: &Board,
        frame: &Message,
        at: Instant,
        started: Instant,
        progress: &mut Progress,
        tally: &mut Tally,
    ) {
        let heard = match Heard::read(self.form.codec, frame) {
            Some(Ok(heard)) => heard,
            Some(Err(reason)) => {
                tally.unreadable += 1;
                return tally.problem(|| format!("a frame cannot be read: {reason}"));
            }
            None => return,
        };
        if heard.is_message() {
            self.take_message(board, &heard, at, started, progress, tally);
        } else if heard.kind == "ack" {
            self.take_ack(board, &heard, at, progress, tally);
        } else if heard.kind == "error" {
            tally.unreadable += 1;
            tally.problem(|| "the broker answered with an error frame".to_owned());
        }
    }

    fn take_ack(
        &self,
        board: &Board,
        ack: &Heard<'_>,
        at: Instant,
        progress: &mut Progress,
        tally: &mut Tally,
    ) {
        let stamp = ack.id.and_then(Stamp::from_frame_id);
        let stamp = stamp.filter(|stamp| stamp.sender == self.place);
        let Some(us) = stamp.and_then(|stamp| board.since_sent(stamp, at)) else {
            tally.unreadable += 1;
            return tally
                .problem(|| format!("an ack of something that was not sent: {:?}", ack.id));
        };
        progress.answered += 1;
        if ack.queued {
            board.acked.fetch_add(1, Ordering::Relaxed);
            tally.ack_us.push(us);
        } else {
            board.refused.fetch_add(1, Ordering::Relaxed);
            let reason = ack.error.clone().unwrap_or_default();
            tally.problem(|| format!("a send was refused: {reason}"));
        }
    }

    fn take_message(
        &mut self,
        board: &Board,
        push: &Heard<'_>,
        at: Instant,
        started: Instant,
        progress: &mut Progress,
        tally: &mut Tally,
    ) {
        let stamp = self.open(board, push);
        let Some((stamp, us)) = stamp.and_then(|stamp| Some((stamp, board.since_sent(stamp, at)?)))
        else {
            tally.unreadable += 1;
            return tally.problem(|| "a message that does not decrypt to what was sent".to_owned());
        };
        match progress.last.entry(stamp.sender) {
            Entry::Occupied(mut last) => {
                tally.behind += u64::from(stamp.number <= *last.get());
                last.insert(stamp.number.max(*last.get()));
            }
            Entry::Vacant(last) => {
                last.insert(stamp.number);
            }
        }
        board.receipt(stamp);
        board.received_at(at);
        tally.end_to_end_us.push(us);
        let elapsed = at.saturating_duration_since(started);
        let bucket = usize::try_from(elapsed.as_nanos() / BUCKET.as_nanos()).unwrap_or_default();
        if tally.over_time.len() <= bucket {
            tally.over_time.resize(bucket + 1, 0);
        }
        tally.over_time[bucket] += 1;
        if let (true, Some(id)) = (self.confirms, push.message_id.or(push.id))
            && let Ok(frame) = self.form.confirmation(id)
        {
            self.wire.queue(frame);
        }
    }

    /// The sender of a message that is whole: sealed by who the broker says sent
    /// it, for this peer or for all.
    fn open(&self, board: &Board, push: &Heard<'_>) -> Option<Stamp> {
        let sender = match push.sender_pubkey {
            Some(key) => *board.by_key.get(key)?,
            None => push.id.and_then(Stamp::from_frame_id)?.sender,
        };
        let ciphertext = push.ciphertext.as_ref()?.as_text();
        let nonce = push.nonce.as_ref()?.as_text();
        let shared = self.boxes.get(&sender);
        let sealed = match push.sealed_key {
            None => shared.and_then(|shared| shared.open(nonce, ciphertext)),
            // Without a look at the signature, which costs a recipient more than all else.
            Some(key) => Some(many::open(shared?, nonce, &many::bytes_of(ciphertext)?, key)?),
        };
        let text = match sealed {
            Some(text) => text,
            None => sealing::open_plain(ciphertext)?.into_bytes(),
        };
        let stamp = Stamp::read(&text)?;
        (stamp.sender == sender && sender != self.place).then_some(stamp)
    }
}
