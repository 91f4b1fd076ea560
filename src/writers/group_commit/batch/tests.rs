use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::quotas::Quota;
use super::super::tests::direct;
use super::*;
use crate::id::MessageId;

/// A store of the lane's few questions.
#[derive(Default)]
struct Fake {
    /// Envelopes of each transaction.
    transactions: Mutex<Vec<usize>>,
    kept: Mutex<Vec<MessageId>>,
    /// Members that it does not know.
    gone: Vec<&'static str>,
    /// Ids that it never takes, for another reason.
    odd: Vec<&'static str>,
    /// Answers this many fewer than it is asked for.
    short: usize,
    away: bool,
    repeated: Option<&'static str>,
}

#[async_trait]
impl Envelopes for Fake {
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>> {
        self.transactions.lock().push(batch.len());
        if self.away {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        if batch.iter().any(|e| self.gone.contains(&e.sender_member.as_str())) {
            return Err(StoreError::NotFound("no such member".to_owned()));
        }
        if batch.iter().any(|e| self.odd.contains(&e.id.as_str())) {
            return Err(StoreError::Broken("never".to_owned()));
        }
        self.kept.lock().extend(batch.iter().map(|envelope| envelope.id.clone()));
        let new = Accepted::New { seq: 1, previous_multicast: 0, roster: 0, created_at: now };
        Ok(vec![new; batch.len() - self.short])
    }

    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
        let messages = self.kept.lock().len() as u64;
        Ok(vec![WaitingLoad { messages, bytes: 0 }; asked.len()])
    }

    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>> {
        let id = |e: &NewEnvelope| {
            self.repeated.filter(|known| e.client_message_id.as_deref() == Some(*known))
        };
        Ok(batch.iter().map(|envelope| id(envelope).map(MessageId::from)).collect())
    }
}

const OFF: QuotaConfig = QuotaConfig {
    mailbox_messages_max: 0,
    mailbox_bytes_max: 0,
    sender_bytes_max: 0,
    mesh_bytes_max: 0,
};

fn batch(senders: &[&str]) -> Vec<NewEnvelope> {
    let of = |(number, sender): (usize, &&str)| {
        let mut new = direct(sender, "key");
        new.id = MessageId::from(number.to_string());
        new
    };
    senders.iter().enumerate().map(of).collect()
}

/// Writes a batch and checks that all came back in their order.
async fn write(writer: &mut Writer, fake: &Fake, batch: Vec<NewEnvelope>) -> Vec<Outcome> {
    let ids: Vec<MessageId> = batch.iter().map(|envelope| envelope.id.clone()).collect();
    let (envelopes, outcomes) = writer.write(fake, batch, &[]).await;
    let back: Vec<MessageId> = envelopes.into_iter().map(|new| new.envelope.id).collect();
    assert_eq!((back, outcomes.len()), (ids.clone(), ids.len()));
    outcomes
}

fn refused(outcomes: &[Outcome]) -> Vec<(usize, Refused)> {
    let refused = |(at, outcome): (usize, &Outcome)| Some((at, *outcome.as_ref().err()?));
    outcomes.iter().enumerate().filter_map(refused).collect()
}

#[tokio::test]
async fn one_that_is_never_taken_costs_the_others_a_few_transactions() {
    let fake = Fake { odd: vec!["700"], ..Fake::default() };
    let mut writer = Writer::new(OFF);
    let outcomes = write(&mut writer, &fake, batch(&["a"; 2048])).await;
    assert_eq!(refused(&outcomes), [(700, Refused::Rejected)]);
    assert!(fake.transactions.lock().len() <= 23, "{:?}", fake.transactions.lock());
    let kept: Vec<usize> =
        fake.kept.lock().iter().map(|id| id.as_str().parse().expect("a number")).collect();
    assert!(kept.is_sorted(), "their order is kept");
    assert_eq!(kept.len(), 2047);
}

#[tokio::test]
async fn a_sender_that_is_gone_is_found_once_and_refused_at_once_afterwards() {
    let fake = Fake { gone: vec!["gone"], ..Fake::default() };
    let mut writer = Writer::new(OFF);
    let senders: Vec<&str> = (0..512).map(|n| if n % 2 == 0 { "gone" } else { "a" }).collect();
    let outcomes = write(&mut writer, &fake, batch(&senders)).await;
    assert_eq!(refused(&outcomes).len(), 256);
    assert!(fake.transactions.lock().len() < 25, "{:?}", fake.transactions.lock());
    fake.transactions.lock().clear();
    let outcomes = write(&mut writer, &fake, batch(&["a", "gone", "a"])).await;
    assert_eq!(refused(&outcomes), [(1, Refused::Rejected)]);
    assert_eq!(*fake.transactions.lock(), [2]);
}

#[tokio::test]
async fn a_store_that_answers_short_leaves_nobody_waiting() {
    let fake = Fake { short: 2, ..Fake::default() };
    let outcomes = write(&mut Writer::new(OFF), &fake, batch(&["a"; 5])).await;
    assert_eq!(refused(&outcomes), [(3, Refused::Unavailable), (4, Refused::Unavailable)]);
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_once() {
    let fake = Fake { away: true, ..Fake::default() };
    let outcomes = write(&mut Writer::new(OFF), &fake, batch(&["a"; 5])).await;
    assert_eq!(refused(&outcomes).len(), 5);
    assert_eq!(*fake.transactions.lock(), [5]);
}

#[tokio::test]
async fn what_is_over_a_quota_is_refused_and_the_rest_of_the_batch_kept() {
    let fake = Fake { repeated: Some("again"), ..Fake::default() };
    let mut writer = Writer::new(QuotaConfig { mailbox_messages_max: 3, ..OFF });
    let mut sends = batch(&["a"; 5]);
    sends[4].client_message_id = Some("new".to_owned());
    let outcomes = write(&mut writer, &fake, sends).await;
    let full = Refused::Full(Quota::Mailbox);
    assert_eq!(refused(&outcomes), [(3, full), (4, full)]);
    // A repeat of what is kept is no refusal, however full it is.
    let mut sends = batch(&["a"; 2]);
    sends[1].client_message_id = Some("again".to_owned());
    let outcomes = write(&mut writer, &fake, sends).await;
    assert_eq!(refused(&outcomes), [(0, full)]);
    assert_eq!(outcomes[1], Ok(Accepted::Duplicate { id: MessageId::from("again") }));
}

#[tokio::test]
async fn of_those_over_a_rate_only_what_was_sent_before_is_taken_and_the_others_go_on() {
    let fake = Fake { repeated: Some("again"), ..Fake::default() };
    let mut batch = batch(&["a"; 5]);
    batch[1].client_message_id = Some("again".to_owned());
    batch[2].client_message_id = Some("new".to_owned());
    let (envelopes, outcomes) = Writer::new(OFF).write(&fake, batch, &[1, 2, 3]).await;
    assert_eq!(envelopes.len(), 5);
    assert_eq!(refused(&outcomes), [(2, Refused::OverRate), (3, Refused::OverRate)]);
    assert_eq!(outcomes[1], Ok(Accepted::Duplicate { id: "again".into() }));
    assert_eq!(fake.kept.lock().len(), 2, "those that are not over it");
}
