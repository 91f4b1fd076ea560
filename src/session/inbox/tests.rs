mod any_order;
mod confirming;
mod draining;
mod room;

use super::*;
use crate::protocol::{ErrorFrame, ServerMessage};

fn delivery(id: &str, route: Route) -> Delivery {
    let message = ServerMessage::Error(ErrorFrame::new("test", id));
    Delivery {
        id: MessageId::from(id),
        route,
        priority: Priority::Next,
        client_message_id: Some(Arc::from(format!("client-{id}"))),
        report_to: None,
        frame: Arc::new(SharedFrame::new(message)),
    }
}

fn direct(id: &str) -> Delivery {
    delivery(id, Route::Direct)
}

fn multicast(seq: i64) -> Delivery {
    delivery(&format!("m{seq}"), Route::Multicast(seq))
}

/// Ends a round with room for everything: what came out from behind the gate.
fn end_drain(inbox: &mut Inbox, found_all: bool) -> Option<Vec<Delivery>> {
    let mut out = Vec::new();
    let is_over = inbox.end_drain(found_all, |delivery| {
        out.push(delivery.clone());
        true
    });
    is_over.then_some(out)
}

/// What is offered is written at once.
fn offer_written(inbox: &mut Inbox, delivery: &Delivery, now_ms: i64) {
    assert_eq!(inbox.offer(delivery), Offer::Send);
    wrote(inbox, delivery, now_ms);
}

fn wrote(inbox: &mut Inbox, delivery: &Delivery, now_ms: i64) {
    match delivery.route {
        Route::Direct => inbox.wrote_direct(&delivery.id, now_ms),
        Route::Multicast(seq) => inbox.wrote_multicast(seq, now_ms),
    };
}

/// A session that is live.
fn live(confirms: bool) -> Inbox {
    let mut inbox = Inbox::new(0, confirms);
    assert!(inbox.plan_drain().behind, "the first drain reads multicasts");
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
    inbox
}
