//! Between a client and a broker: somebody who reads every frame, and changes those of the
//! broker as a test tells him. What an operator could do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

type Lie = Box<dyn FnMut(&mut Value) + Send>;

/// Speaks for a broker, and not always the truth.
pub struct Liar {
    address: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    heard: Arc<Mutex<Vec<Value>>>,
    accepting: JoinHandle<()>,
}

impl Liar {
    /// Before the broker at that URL, true to it at first.
    pub async fn before(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Box::new(|_| {})));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (broker, lies, hears) = (broker.to_owned(), Arc::clone(&lie), Arc::clone(&heard));
        let accepting = tokio::spawn(async move {
            // Aborted with this task.
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(between(client, broker.clone(), Arc::clone(&lies), Arc::clone(&hears)));
            }
        });
        Self { address, lie, heard, accepting }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// What becomes of each frame of the broker from now on.
    pub fn says(&self, lie: impl FnMut(&mut Value) + Send + 'static) {
        *self.lie.lock().expect("whole") = Box::new(lie);
    }

    /// The newest frame of that type that a client has sent.
    pub fn heard(&self, kind: &str) -> Option<Value> {
        let heard = self.heard.lock().expect("whole");
        heard.iter().rev().find(|frame| frame["type"] == kind).cloned()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn between(
    client: TcpStream,
    broker: String,
    lie: Arc<Mutex<Lie>>,
    heard: Arc<Mutex<Vec<Value>>>,
) {
    let Ok(mut client) = accept_async(client).await else { return };
    let Ok((mut broker, _)) = connect_async(broker).await else { return };
    loop {
        tokio::select! {
            frame = client.next() => {
                let Some(Ok(frame)) = frame else { return };
                if let Message::Text(text) = &frame {
                    let read = serde_json::from_str(text).expect("JSON");
                    heard.lock().expect("whole").push(read);
                }
                if broker.send(frame).await.is_err() {
                    return;
                }
            }
            frame = broker.next() => {
                let Some(Ok(mut frame)) = frame else { return };
                if let Message::Text(text) = &frame {
                    let mut read: Value = serde_json::from_str(text).expect("JSON");
                    (lie.lock().expect("whole"))(&mut read);
                    frame = Message::text(read.to_string());
                }
                if client.send(frame).await.is_err() {
                    return;
                }
            }
        }
    }
}
