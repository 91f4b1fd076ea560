//! A stand-in for the API by which a host asks its model: what it is asked comes to the
//! test, which answers.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::harness::PATIENCE;

/// The stand-in; gone when dropped.
pub struct Model {
    address: SocketAddr,
    asked: Mutex<mpsc::Receiver<Question>>,
    serving: tokio::task::JoinHandle<()>,
}

/// What the model is asked, once.
pub struct Question {
    body: Value,
    answer: oneshot::Sender<Block>,
}

/// What the model answers.
pub struct Block(Value);

impl Block {
    pub fn text(words: &str) -> Self {
        Self(json!({"type": "text", "text": words}))
    }

    pub fn tool(name: &str, input: Value) -> Self {
        Self(json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": input}))
    }
}

impl Question {
    /// Whether that stands anywhere in what the model is asked.
    pub fn says(&self, words: &str) -> bool {
        self.count(words) > 0
    }

    pub fn count(&self, words: &str) -> usize {
        self.body["messages"].to_string().matches(words).count()
    }

    pub fn answer(self, block: Block) {
        // A host that has gone is found out by its own end.
        let _ = self.answer.send(block);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Model {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (tell, asked) = mpsc::channel(16);
        let answer = move |uri: axum::http::Uri, body: Bytes| {
            let tell = tell.clone();
            async move { Ok::<_, Infallible>(answered(uri.path(), &body, &tell).await) }
        };
        let router = Router::new().fallback(any(answer));
        let serving = async move { axum::serve(listener, router).await.expect("it serves") };
        Self { address, asked: Mutex::new(asked), serving: tokio::spawn(serving) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the session's model is asked next.
    pub async fn asked(&self) -> Question {
        let mut asked = self.asked.lock().await;
        let next = tokio::time::timeout(PATIENCE, asked.recv()).await;
        next.expect("the model is asked").expect("it serves")
    }
}

async fn answered(path: &str, body: &[u8], tell: &mpsc::Sender<Question>) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if path != "/v1/messages" {
        return axum::http::StatusCode::NOT_FOUND.into_response();
    }
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    // A host asks small questions of its own beside the session: titles, summaries.
    let of_session = tools.iter().any(|tool| tool["name"] == "Bash");
    let (model, streams) = (body["model"].clone(), body["stream"] == json!(true));
    let block = if of_session {
        let (answer, answered) = oneshot::channel();
        if tell.send(Question { body, answer }).await.is_err() {
            return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        answered.await.unwrap_or_else(|_| Block::text("the test is over"))
    } else {
        Block::text("ok")
    };
    let reason = if block.0["type"] == "tool_use" { "tool_use" } else { "end_turn" };
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    });
    if streams {
        return ([(CONTENT_TYPE, "text/event-stream")], events(&message, &block, reason))
            .into_response();
    }
    let mut whole = message;
    whole["content"] = json!([block.0]);
    whole["stop_reason"] = json!(reason);
    axum::Json(whole).into_response()
}

/// The answer as the events of a stream.
fn events(message: &Value, block: &Block, reason: &str) -> String {
    let (start, delta) = match block.0["type"].as_str() {
        Some("text") => (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": block.0["text"]}),
        ),
        _ => {
            let mut start = block.0.clone();
            start["input"] = json!({});
            let input = block.0["input"].to_string();
            (start, json!({"type": "input_json_delta", "partial_json": input}))
        }
    };
    let stopped = json!({"stop_reason": reason, "stop_sequence": null});
    let events = [
        ("message_start", json!({ "message": message })),
        ("content_block_start", json!({"index": 0, "content_block": start})),
        ("content_block_delta", json!({"index": 0, "delta": delta})),
        ("content_block_stop", json!({"index": 0})),
        ("message_delta", json!({"delta": stopped, "usage": {"output_tokens": 1}})),
        ("message_stop", json!({})),
    ];
    let event = |(name, mut data): (&str, Value)| {
        data["type"] = json!(name);
        format!("event: {name}\ndata: {data}\n\n")
    };
    events.map(event).concat()
}
