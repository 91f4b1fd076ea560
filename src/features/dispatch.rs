//! From a request's frame to its answer: read, paid for, handled, answered once.
//!
//! The only place that answers; handlers return. Called by [`handle`](super::handle).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;

use super::context::{Context, Refusal, Work};
use crate::codec::Asked;
use crate::limits;
use crate::protocol::{Answer, Ask, Unasked};
use crate::rates::cost;
use crate::session::Session;
use crate::session::pipeline::Pipelined;

/// What a request costs in a mesh of so many presences.
pub(super) type Cost<R> = fn(&R, usize) -> u32;

/// The function that answers a request.
pub(super) type Handler<R, A> =
    for<'a> fn(&'a Context<'a>, R) -> Pin<Box<dyn Future<Output = Result<A, Refusal>> + Send + 'a>>;

#[derive(Clone, Copy)]
pub(super) enum Turn {
    /// In the socket's own task, whose next frame waits.
    Sequential,
    /// In a task of its own: it may take minutes, in which the peer's pings and
    /// messages are to be read.
    Beside,
    /// A write, as the one before: it goes to the store after that, and is read without
    /// waiting for it. Its answer is short.
    Pipelined,
}

/// A request that a peer may make.
pub(super) struct Entry {
    pub(super) kind: &'static str,
    /// Begins to answer it.
    pub(super) begin: for<'a> fn(Context<'a>, &Asked<'_>) -> Option<Work<'a>>,
}

/// The list of requests: `Struct => handler, cost` and, for long work, `beside`; for
/// writes, `pipelined` and which of them are; where daemons wait for an answer of another
/// type, `daemon` and the handler that gives it.
macro_rules! requests {
    ($($ask:ident => $handler:path, $cost:expr $(, $how:ident $($other:expr)?)?;)*) => {
        &[$($crate::features::dispatch::Entry {
            kind: <$ask as $crate::protocol::Ask>::TYPE,
            begin: |context, asked| {
                $crate::features::dispatch::requests!(
                    @begin context, asked, $ask, $handler, $cost $(, $how $($other)?)?
                )
            },
        }),*]
    };
    (@begin $context:ident, $asked:ident, $ask:ident, $handler:expr, $cost:expr) => {
        $crate::features::dispatch::requests!(
            @in |_| $crate::features::dispatch::Turn::Sequential,
            $context, $asked, $ask, $handler, $cost
        )
    };
    (@begin $context:ident, $asked:ident, $ask:ident, $handler:expr, $cost:expr, beside) => {
        $crate::features::dispatch::requests!(
            @in |_| $crate::features::dispatch::Turn::Beside,
            $context, $asked, $ask, $handler, $cost
        )
    };
    (
        @begin $context:ident, $asked:ident, $ask:ident, $handler:expr, $cost:expr,
        pipelined $is:expr
    ) => {
        $crate::features::dispatch::requests!(
            @in |ask: &$ask| match $is(ask) {
                true => $crate::features::dispatch::Turn::Pipelined,
                false => $crate::features::dispatch::Turn::Sequential,
            },
            $context, $asked, $ask, $handler, $cost
        )
    };
    (
        @begin $context:ident, $asked:ident, $ask:ident, $handler:expr, $cost:expr,
        daemon $other:expr
    ) => {
        if $context.is_of_daemon() {
            $crate::features::dispatch::requests!(
                @begin $context, $asked, $ask, $other, $cost
            )
        } else {
            $crate::features::dispatch::requests!(
                @begin $context, $asked, $ask, $handler, $cost
            )
        }
    };
    (@in $turn:expr, $context:ident, $asked:ident, $ask:ident, $handler:expr, $cost:expr) => {
        $crate::features::dispatch::begin::<$ask, _>(
            $context,
            $asked,
            $cost,
            |context, ask| Box::pin($handler(context, ask)),
            $turn,
        )
    };
}
pub(super) use requests;

/// Reads a request and begins to answer it.
pub(super) fn begin<'a, R: Ask, A: Answer>(
    context: Context<'a>,
    asked: &Asked<'_>,
    cost: Cost<R>,
    handler: Handler<R, A>,
    turn: impl Fn(&R) -> Turn,
) -> Option<Work<'a>> {
    let ask = match read::<R>(asked) {
        Ok(ask) => ask,
        Err(refusal) => return noise(&context, Unasked::Silent, refusal),
    };
    let cost = cost(&ask, context.room.presences());
    let turn = turn(&ask);
    Some(match turn {
        Turn::Sequential => Box::pin(async move {
            context.session.pipelined_is_done().await;
            if pays(&context, cost).await {
                answer(context, ask, handler).await;
            }
        }),
        Turn::Beside => Box::pin(async move {
            context.session.pipelined_is_done().await;
            if pays(&context, cost).await {
                answer_beside(&context, ask, handler, None);
            }
        }),
        Turn::Pipelined => Box::pin(async move {
            if pays(&context, cost).await {
                let pipelined = context.session.pipeline(short_answer_bytes(&context)).await;
                answer_beside(&context, ask, handler, Some(pipelined));
            }
        }),
    })
}

/// What an answer takes at most that says no more than that it is done, or why not. It
/// has the request's id twice.
fn short_answer_bytes(context: &Context<'_>) -> usize {
    let id = context.req_id.as_ref().map_or(0, |id| id.to_text().len());
    limits::ACK_BYTES_MAX + 2 * ESCAPED_BYTES_MAX * id
}

/// What a byte of a text takes at most, as JSON.
const ESCAPED_BYTES_MAX: usize = 6;

/// Reads the fields of a request.
pub(super) fn read<R: DeserializeOwned>(asked: &Asked<'_>) -> Result<R, Refusal> {
    asked.read().map_err(|reason| Refusal::invalid(format!("{}: {reason}", asked.kind())))
}

async fn answer<R: Ask, A: Answer>(context: Context<'_>, ask: R, handler: Handler<R, A>) {
    let result = handler(&context, ask).await;
    context.settle(R::UNASKED, result);
    if let Some(work) = context.take_afterwards() {
        work.await;
    }
}

fn answer_beside<R: Ask, A: Answer>(
    context: &Context<'_>,
    ask: R,
    handler: Handler<R, A>,
    pipelined: Option<Pipelined>,
) {
    let (parts, room) = (Arc::clone(context.parts), Arc::clone(context.room));
    let (session, req_id) = (Arc::clone(context.session), context.req_id.clone());
    let tasks = parts.life.tasks.clone();
    let mut work = Box::pin(async move {
        answer(Context::new(&parts, &room, &session, req_id), ask, handler).await;
        drop(pipelined);
    });
    // Up to where it waits for others at once, so that two of these keep their order: a
    // task that has used its time up would else wait before that.
    if tokio::task::unconstrained(work.as_mut()).now_or_never().is_none() {
        tasks.spawn(work);
    }
}

/// A frame that asks nothing which could be answered. What is returned is to be awaited
/// before the session's next frame is read.
pub(super) fn noise<'a>(
    context: &Context<'a>,
    unasked: Unasked,
    refusal: Refusal,
) -> Option<Work<'a>> {
    context.refuse(unasked, refusal);
    charge(context.session, cost::OF_NOISE)
}

/// Charges a session for a frame that cannot be refused. What is returned is to be
/// awaited before its next frame is read.
pub(super) fn charge<'a>(session: &Session, cost: u32) -> Option<Work<'a>> {
    session.charge(cost).map(|owed| -> Work<'a> { Box::pin(tokio::time::sleep(owed)) })
}

/// Whether its session and its member can pay for a request. One whose sender can be
/// told is refused when they cannot; any other waits, and its socket with it.
pub(super) async fn pays(context: &Context<'_>, cost: u32) -> bool {
    let Err(wait) = pay(context, cost).await else { return true };
    context.parts.metrics.rejected("request_rate");
    if context.req_id.is_some() {
        let text = "this session asks faster than it may; wait and ask again";
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        context.say_error(Refusal::new("rate_limit", text).after_ms(wait_ms));
    }
    false
}

async fn pay(context: &Context<'_>, cost: u32) -> Result<(), Duration> {
    let Context { parts, session, .. } = context;
    let of_member = || parts.rates.may_ask(&*parts.cluster, &session.member, cost);
    if context.req_id.is_some() {
        session.budget.lock().take(session.age_ms(), cost)?;
        return of_member().await;
    }
    if let Some(owed) = session.charge(cost) {
        tokio::time::sleep(owed).await;
    }
    let mut left = Duration::from_millis(limits::UNTOLD_REQUEST_WAIT_MS);
    while let Err(wait) = of_member().await {
        if left.is_zero() || !session.outbox.is_open() {
            return Err(wait);
        }
        let pause = wait.min(left).min(LOOK_UP);
        tokio::time::sleep(pause).await;
        left -= pause;
    }
    Ok(())
}

/// How long a request waits for its member's budget before it looks whether its
/// socket is still there.
const LOOK_UP: Duration = Duration::from_secs(1);
