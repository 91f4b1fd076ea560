//! What the host asks of the server: who it is, its tools, and their calls.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    ExperimentalCapabilities, Implementation, JsonObject, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{RoleServer, ServerHandler};
use tokio::sync::watch;
use tokio::time::Instant;

use super::at::{At, with_urgent};
use super::calls::Calls;
use super::idle::Host;
use super::seat::Seat;
use super::ways::Ways;
use super::{instructions, tools};
use crate::claude::link::Link;

/// The newest revision that has a handshake, and with it the channel.
const NEWEST: ProtocolVersion = ProtocolVersion::V_2025_11_25;
/// By which a host knows that messages may come as notifications.
const CHANNEL: &str = "claude/channel";

/// The server's side of the pipe.
pub(super) struct Server {
    pub(super) seat: Seat,
    pub(super) calls: Arc<Calls<Link>>,
    pub(super) ways: Arc<Mutex<Ways>>,
    pub(super) host: watch::Sender<Host>,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let channel = [(CHANNEL.to_owned(), JsonObject::new())];
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_experimental_with(ExperimentalCapabilities::from(channel))
            .build();
        ServerConfig::new(capabilities)
            .with_protocol_version(NEWEST)
            .with_server_info(Implementation::new("claudemesh", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions::TEXT)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&NEWEST))
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.host.send_replace(Some((context.peer, Instant::now())));
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::definitions()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::definitions().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let link = match self.seat.link_or_why().await {
            Ok(link) => link,
            Err(why) => return Ok(CallToolResult::error(vec![ContentBlock::text(why)]).into()),
        };
        link.tried().await;
        let at = At {
            link,
            calls: Arc::clone(&self.calls),
            ways: Arc::clone(&self.ways),
            call: context.id,
        };
        let arguments = request.arguments.unwrap_or_default();
        let Some(said) = tools::call(&at, &request.name, arguments).await else {
            let sentence = format!("there is no tool {:?}", request.name);
            return Err(ErrorData::invalid_params(sentence, None));
        };
        let result = match with_urgent(&at, said).await {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
        };
        Ok(result.into())
    }
}
