//! A web server that a broker calls: it notes what it is told, and refuses as it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Called {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: Bytes,
    /// Whether it was answered well.
    pub is_taken: bool,
}

impl Called {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// The server; gone when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Called>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// One that refuses one call in `refused_each`; 0: none.
    pub async fn start(refused_each: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let calls: Arc<Mutex<Vec<Called>>> = Arc::default();
        let (noted, count) = (Arc::clone(&calls), Arc::new(AtomicUsize::new(0)));
        let take = move |headers: HeaderMap, body: Bytes| {
            let (noted, count) = (Arc::clone(&noted), Arc::clone(&count));
            async move {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let is_taken = refused_each == 0 || number % refused_each != 0;
                let header = |name: &str| {
                    let value = headers.get(name).and_then(|value| value.to_str().ok());
                    value.unwrap_or_default().to_owned()
                };
                let [id, timestamp, signature] =
                    ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
                noted.lock().push(Called { id, timestamp, signature, body, is_taken });
                if is_taken { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
            }
        };
        let routes = Router::new().route("/told", post(take));
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self { address, calls, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/told?key=word", self.address)
    }

    pub fn calls(&self) -> Vec<Called> {
        self.calls.lock().clone()
    }

    /// What it took, each once, in the order in which it came first.
    pub fn taken(&self) -> Vec<Called> {
        let mut taken: Vec<Called> = Vec::new();
        for call in self.calls().into_iter().filter(|call| call.is_taken) {
            if !taken.iter().any(|known| known.id == call.id) {
                taken.push(call);
            }
        }
        taken
    }
}
