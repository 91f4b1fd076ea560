//! The pipe to the host: standard input and output, and what can be read from them about
//! the fate of calls.
//!
//! The pipe passes every frame on as it is. Beside that it notes in the books which call
//! begins, which answer is written, and which call is cancelled, and it says when the
//! host is gone: the end of standard input is the only sure sign of that.

use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{ClientNotification, ClientRequest, JsonRpcMessage, RequestId};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;

/// A transport with somebody who takes notes.
pub(super) struct Pipe<T, S> {
    inner: T,
    calls: Arc<Calls<S>>,
    /// Cancelled when nothing more comes from the host.
    ended: CancellationToken,
}

impl<T, S> Pipe<T, S> {
    pub(super) const fn new(inner: T, calls: Arc<Calls<S>>, ended: CancellationToken) -> Self {
        Self { inner, calls, ended }
    }

    fn note(&self, message: &RxJsonRpcMessage<RoleServer>) {
        match message {
            JsonRpcMessage::Request(request) => {
                if matches!(request.request, ClientRequest::CallToolRequest(_)) {
                    self.calls.began(&request.id);
                }
            }
            JsonRpcMessage::Notification(said) => {
                if let ClientNotification::CancelledNotification(cancelled) = &said.notification
                    && let Some(call) = &cancelled.params.request_id
                {
                    self.calls.cancelled(call);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
    }
}

fn answered(message: &TxJsonRpcMessage<RoleServer>) -> Option<RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(response.id.clone()),
        _ => None,
    }
}

impl<T, S> Transport<RoleServer> for Pipe<T, S>
where
    T: Transport<RoleServer>,
    S: Send + 'static,
{
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let call = answered(&item);
        let calls = Arc::clone(&self.calls);
        let writing = self.inner.send(item);
        async move {
            writing.await?;
            if let Some(call) = call {
                calls.written(&call);
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let Some(message) = self.inner.receive().await else {
            self.ended.cancel();
            return None;
        };
        self.note(&message);
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}
