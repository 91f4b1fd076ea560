//! Peers that come and go: `churn`. Built on the client itself, which is what
//! comes and goes in the field.
//!
//! Each peer connects, sends to the next one (which may be away), takes what
//! has come for it, and goes; at the end all stay until everything has
//! arrived. A peer confirms what it takes, and says goodbye: so everything
//! must come exactly once over all of its connections together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::args::Common;
use super::board::Board;
use super::frames::{HEADER_BYTES, Stamp};
use super::outcome::{Outcome, histogram_of};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::Stage;
use super::traffic::options;
use crate::client::{Client, ClientOptions, Inbound, Inbox, Outgoing};
use crate::id::Key;
use crate::protocol::Priority;

/// The shortest stay of a peer.
const STAY: Duration = Duration::from_millis(20);
/// The time that a peer is away.
const AWAY: Duration = Duration::from_millis(10);
const BYTES: usize = 4 * HEADER_BYTES;
/// The spread of first arrivals: peers of a mesh do not all come in the same moment.
const STAGGER: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Tally {
    behind: u64,
    unreadable: u64,
    failed: u64,
    problem: Option<String>,
    hello_us: Vec<u32>,
    end_to_end_us: Vec<u32>,
    last: HashMap<u32, u32>,
}

struct Peer {
    place: u32,
    url: String,
    options: ClientOptions,
    next: Key,
    cycles: u32,
    messages: u32,
}

pub(super) async fn run(
    stage: &Stage,
    cycles: u32,
    messages: u32,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let identities: Vec<_> = stage.sessions.iter().flatten().collect();
    let keys: Vec<Key> = identities
        .iter()
        .map(|peer| peer.session_key.as_ref().unwrap_or(&peer.member_key).public_key())
        .collect();
    let by_key = keys.iter().zip(0..).map(|(key, place)| (key.to_string(), place)).collect();
    let fans = keys.iter().map(|_| vec![1; (cycles * messages) as usize]).collect();
    let board = Arc::new(Board::new(by_key, fans, None, false));
    let mut running = JoinSet::new();
    let (broker, load) = (Meter::start(&stage.processes), Meter::start(&[Process::own()]));
    let begun = Instant::now();
    board.start();
    for (place, identity) in identities.iter().enumerate() {
        let mut options = options((*identity).clone(), common);
        options.confirm = true;
        options.reconnect = false;
        options.limits.remembered_max = 0;
        let peer = Peer {
            place: u32::try_from(place)?,
            url: stage.url_of(place).to_owned(),
            options,
            // Mail is for the member's key: a session's is nobody's before it came first.
            next: identities[(place + 1) % keys.len()].member_pubkey(),
            cycles,
            messages,
        };
        running.spawn(peer.run(Arc::clone(&board)));
    }
    progress.begin("messages received", board.deliveries());
    let patience = Duration::from_secs(common.patience);
    let (mut before, mut moved) = (0, Instant::now());
    while !board.is_complete() && moved.elapsed() < patience && running.len() == keys.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = board.acked.load(Ordering::Relaxed) + board.received.load(Ordering::Relaxed);
        if now != before {
            (before, moved) = (now, Instant::now());
            progress.at(board.received.load(Ordering::Relaxed));
        }
    }
    progress.done();
    let seconds = begun.elapsed().as_secs_f64();
    let (broker, load) = (broker.stop(), load.stop());
    board.over.cancel();
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally.context("a peer failed")?);
    }
    let mut checks = board.audit(tallies.iter().map(|tally| tally.behind).sum());
    for tally in &tallies {
        checks.unreadable += tally.unreadable;
        checks.disconnected += tally.failed;
        if let Some(problem) = &tally.problem {
            checks.problem(problem.clone());
        }
    }
    let mut extra = serde_json::Map::new();
    extra.insert("messages".to_owned(), checks.received.into());
    Ok(Outcome {
        unit: "cycles",
        count: tallies.iter().map(|tally| tally.hello_us.len() as u64).sum(),
        seconds,
        checks,
        end_to_end: histogram_of(tallies.iter().flat_map(|tally| &tally.end_to_end_us)),
        ack: histogram_of(tallies.iter().flat_map(|tally| &tally.hello_us)),
        over_time: Vec::new(),
        broker,
        load,
        extra,
    })
}

impl Peer {
    async fn run(self, board: Arc<Board>) -> Tally {
        let mut tally = Tally::default();
        tokio::time::sleep(STAGGER * self.place).await;
        for cycle in 0..self.cycles {
            let last = cycle + 1 == self.cycles;
            if let Err(error) = self.cycle(&board, cycle, last, &mut tally).await {
                tally.failed += 1;
                tally.problem.get_or_insert_with(|| format!("{error:#}"));
                return tally;
            }
            if board.over.is_cancelled() {
                return tally;
            }
            tokio::time::sleep(AWAY).await;
        }
        tally
    }

    /// One cycle: the peer comes, sends, takes and goes; the last time it stays.
    async fn cycle(
        &self,
        board: &Board,
        cycle: u32,
        last: bool,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (client, mut inbox) = Client::connect(&self.url, self.options.clone()).await?;
        tally.hello_us.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        // Taking goes on beside sending.
        let over = board.over.cancelled();
        tokio::pin!(over);
        let sending = self.send(&client, board, cycle);
        tokio::pin!(sending);
        let mut sent = false;
        let stay = tokio::time::sleep(STAY);
        tokio::pin!(stay);
        loop {
            tokio::select! {
                result = &mut sending, if !sent => {
                    result?;
                    sent = true;
                }
                inbound = inbox.recv() => {
                    self.take(board, inbound.context("the inbox ended")?, tally)?;
                }
                () = &mut stay, if sent && !last && !stay.is_elapsed() => break,
                () = &mut over => break,
            }
            if sent && !last && stay.is_elapsed() {
                break;
            }
        }
        client.close().await;
        self.take_rest(board, &mut inbox, tally)
    }

    async fn send(&self, client: &Client, board: &Board, cycle: u32) -> anyhow::Result<()> {
        for number in cycle * self.messages..(cycle + 1) * self.messages {
            let stamp = Stamp { sender: self.place, number };
            board.sent(stamp, Instant::now());
            let text = stamp.text(BYTES);
            client
                .send_with(Outgoing::new(self.next.as_str(), Priority::Next, text.as_bytes()))
                .await?;
            board.acked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes what was confirmed and not read yet.
    fn take_rest(&self, board: &Board, inbox: &mut Inbox, tally: &mut Tally) -> anyhow::Result<()> {
        while let Some(inbound) = inbox.try_recv() {
            if matches!(inbound, Inbound::Closed { .. }) {
                return Ok(());
            }
            self.take(board, inbound, tally)?;
        }
        Ok(())
    }

    fn take(&self, board: &Board, inbound: Inbound, tally: &mut Tally) -> anyhow::Result<()> {
        let (push, plaintext) = match inbound {
            Inbound::Message { push, plaintext, .. } => (push, plaintext),
            Inbound::Closed { code, reason } => anyhow::bail!("closed early: {code} {reason}"),
            _ => return Ok(()),
        };
        let at = Instant::now();
        let sender = board.by_key.get(push.sender_pubkey.as_str()).copied();
        let stamp = plaintext.as_deref().and_then(Stamp::read);
        let stamp = stamp.filter(|stamp| Some(stamp.sender) == sender);
        let Some((stamp, us)) = stamp.and_then(|stamp| Some((stamp, board.since_sent(stamp, at)?)))
        else {
            tally.unreadable += 1;
            return Ok(());
        };
        if let Some(last) = tally.last.insert(stamp.sender, stamp.number) {
            tally.behind += u64::from(stamp.number <= last);
        }
        board.receipt(stamp);
        board.received_at(at);
        tally.end_to_end_us.push(us);
        Ok(())
    }
}
