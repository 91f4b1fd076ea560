//! Redis by TLS.

use super::*;

#[tokio::test]
async fn a_node_by_tls_trusts_whom_it_is_told_to() {
    let server = PrivateRedis::start_with_tls();
    let ca_file = Some(server.ca_file());
    let settings = RedisSettings { url: server.tls_url(), ca_file, ..settings(&server, "first") };
    let (first, _events) = RedisCluster::connect(settings.clone()).await.unwrap();
    assert_eq!(first.health(), ClusterHealth::Up);
    let plain = node(&server, "second").await;
    let digest = [7; 32];
    assert!(first.use_once(&digest, 60_000).await.unwrap());
    assert!(!plain.cluster.use_once(&digest, 60_000).await.unwrap(), "it is the same Redis");

    let facts = examine(&settings).await.unwrap();
    assert_eq!((facts.role.as_str(), facts.maxmemory_policy.as_str()), ("master", "noeviction"));
    let strict = RedisSettings { ca_file: None, ..settings };
    let error = examine(&strict).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "no well-known authority vouches for it: {error}");
}
