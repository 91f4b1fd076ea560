//! Opening connections to Redis: one server, or all of a Redis Cluster.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::aio::{ConnectionLike, MultiplexedConnection, SendError};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, PushInfo, RedisError, RedisFuture, RedisResult, TlsCertificates,
    Value,
};

use super::settings::RedisSettings;
use crate::cluster::ClusterError;
use crate::id::NodeId;

/// From connecting to a greeted connection. Later: the attempt has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// From sending a command to its answer: several round trips across regions.
/// Later: the connection counts as dead and is replaced.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The bound of a call together with its wait for a turn.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Calls of one connection under way. More: they wait, within [`CALL_TIMEOUT`].
pub(super) const CONCURRENT_CALLS_MAX: usize = 1024;

/// Calls under way of one batch, where they cannot go as one pipeline.
pub(super) const CONCURRENT_BATCH_MAX: usize = 64;

/// An open connection.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Plain(MultiplexedConnection),
    /// To all servers of a Redis Cluster.
    Sharded(ClusterConnection),
}

impl Connection {
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::Plain(connection) => connection.subscribe(channels).await,
            // Each channel is on the shard of its slot.
            Self::Sharded(connection) => {
                stream::iter(channels)
                    .map(Ok)
                    .try_for_each_concurrent(CONCURRENT_BATCH_MAX, |channel| {
                        let mut connection = connection.clone();
                        async move { connection.ssubscribe(channel).await }
                    })
                    .await
            }
        }
    }

    pub(super) async fn unsubscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::Plain(connection) => connection.unsubscribe(channels).await,
            Self::Sharded(connection) => {
                for channel in channels {
                    connection.sunsubscribe(channel).await?;
                }
                Ok(())
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Plain(connection) => connection.req_packed_command(cmd),
            Self::Sharded(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Plain(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Sharded(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Plain(connection) => connection.get_db(),
            Self::Sharded(connection) => connection.get_db(),
        }
    }
}

/// How to open connections.
pub(super) struct Opener {
    info: ConnectionInfo,
    cluster_mode: bool,
    client_name: String,
    /// Whom to trust instead of the well-known authorities.
    certificates: Option<TlsCertificates>,
}

impl Opener {
    /// The number of the database in the URL.
    pub(super) fn database(&self) -> i64 {
        if self.cluster_mode { 0 } else { self.info.redis_settings().db() }
    }

    /// # Errors
    /// When the URL is none that Redis is reached by, or the certificates are
    /// not to be read.
    pub(super) fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let info = settings.url.expose().into_connection_info()?;
        let tcp = TcpSettings::default().set_nodelay(true);
        let ca = settings.ca_file.as_ref().map(std::fs::read).transpose()?;
        Ok(Self {
            info: info.set_tcp_settings(tcp),
            cluster_mode: settings.cluster_mode,
            client_name: client_name(&settings.node, settings.region.as_deref()),
            certificates: ca.map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) }),
        })
    }

    /// A connection for commands.
    pub(super) async fn open(&self) -> RedisResult<Connection> {
        self.open_with(None::<fn(PushInfo) -> Result<(), SendError>>).await
    }

    /// A connection that hands pushes to `on_push`, which must not wait.
    pub(super) async fn open_with_pushes(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> RedisResult<Connection> {
        self.open_with(Some(on_push)).await
    }

    async fn open_with<F>(&self, on_push: Option<F>) -> RedisResult<Connection>
    where
        F: Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    {
        let opening = async {
            let mut connection = if self.cluster_mode {
                Connection::Sharded(self.open_sharded(on_push).await?)
            } else {
                Connection::Plain(self.open_plain(on_push).await?)
            };
            if !self.cluster_mode {
                let mut name = redis::cmd("CLIENT");
                name.arg("SETNAME").arg(&self.client_name);
                // Some proxies and access lists refuse it: a connection without a
                // name is as good.
                match name.query_async::<()>(&mut connection).await {
                    Err(error) if is_answer(&error) => {
                        tracing::debug!(%error, "the connection has no name");
                    }
                    named => named?,
                }
            }
            Ok(connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn open_plain<F>(&self, on_push: Option<F>) -> RedisResult<MultiplexedConnection>
    where
        F: Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(CONCURRENT_CALLS_MAX)
            .set_write_backpressure_boundary(64 * 1024);
        let mut settings = self.info.redis_settings().clone();
        if let Some(on_push) = on_push {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
            config = config.set_push_sender(on_push);
        }
        let info = self.info.clone().set_redis_settings(settings);
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn open_sharded<F>(&self, on_push: Option<F>) -> RedisResult<ClusterConnection>
    where
        F: Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    {
        let mut builder = ClusterClientBuilder::new([self.info.clone()])
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .overall_response_timeout(Some(CALL_TIMEOUT))
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(1);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        if let Some(on_push) = on_push {
            builder = builder.use_protocol(ProtocolVersion::RESP3).push_sender(on_push);
        }
        builder.build()?.get_async_connection().await
    }
}

/// As `CLIENT SETNAME` takes it: printable, without spaces.
fn client_name(node: &NodeId, region: Option<&str>) -> String {
    let name = format!("claudemesh/{node}/{}", region.unwrap_or("-"));
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

/// The server said so: the connection is whole.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_)) || error.code().is_some()
}

pub(super) fn unavailable(error: RedisError) -> ClusterError {
    ClusterError::Unavailable(error.to_string())
}

pub(super) fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}
