//! The scripts against the books: the same calls in the same order, drawn at
//! random, must have the same answers on Redis and on the single cluster.
//!
//! Epochs are instants, and differ; nothing expires meanwhile.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const SESSIONS: usize = 4;
/// Fewer places than sessions.
const PLACES: u32 = 3;
const CASES: u32 = 32;
const STEPS_MAX: usize = 40;

/// No two calls are of the same millisecond.
const A_MOMENT: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire {
        session: usize,
        node: usize,
    },
    /// Of a holding that was given at some time, perhaps long ago.
    Renew {
        holding: usize,
        node: usize,
    },
    Release {
        holding: usize,
        node: usize,
        how: Release,
    },
    Revoke {
        holding: usize,
    },
    /// As a row that is left over: of a presence of its own, or a known one.
    Adopt {
        session: usize,
    },
    AdoptKnown {
        holding: usize,
    },
    WriteRecord {
        holding: usize,
    },
    Reap {
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let holding = 0..64_usize;
    let node = 0..2_usize;
    let session = 0..SESSIONS;
    let how = prop_oneof![Just(Release::Grace), Just(Release::Now)];
    prop_oneof![
        4 => (session.clone(), node.clone())
            .prop_map(|(session, node)| Step::Acquire { session, node }),
        3 => (holding.clone(), node.clone())
            .prop_map(|(holding, node)| Step::Renew { holding, node }),
        3 => (holding.clone(), node, how)
            .prop_map(|(holding, node, how)| Step::Release { holding, node, how }),
        1 => holding.clone().prop_map(|holding| Step::Revoke { holding }),
        1 => session.prop_map(|session| Step::Adopt { session }),
        1 => holding.clone().prop_map(|holding| Step::AdoptKnown { holding }),
        1 => holding.prop_map(|holding| Step::WriteRecord { holding }),
        1 => (1..3_usize).prop_map(|limit| Step::Reap { limit }),
    ]
}

/// The same holding, as each of the two gave it.
struct Holding {
    on: [HeldLease; 2],
}

/// An answer without what is a matter of time.
type Outcome = (&'static str, Vec<PresenceId>);

fn outcome(acquired: &Acquired) -> Outcome {
    match acquired {
        Acquired::New { lease, yielded } => {
            ("new", std::iter::once(lease.presence.clone()).chain(ids(yielded)).collect())
        }
        Acquired::Reattached { lease, .. } => ("reattached", vec![lease.presence.clone()]),
        Acquired::AtCapacity { .. } => ("full", Vec::new()),
    }
}

fn held(acquired: Acquired, asked: &PresenceRecord) -> Option<HeldLease> {
    let (lease, record) = match acquired {
        Acquired::New { lease, .. } => (lease, asked.clone()),
        Acquired::Reattached { lease, record } => (lease, *record),
        Acquired::AtCapacity { .. } => return None,
    };
    let record = PresenceRecord { epoch: lease.epoch, online: true, ..record };
    Some(HeldLease { lease, record: Arc::new(record) })
}

/// What the directory shows of a presence.
type Shown = (PresenceId, bool, String, Option<String>);

/// What the directory shows, in an order.
fn rows(records: &[PresenceRecord]) -> Vec<Shown> {
    let row = |record: &PresenceRecord| {
        (record.id.clone(), record.online, record.node.clone(), record.summary.clone())
    };
    let mut rows: Vec<_> = records.iter().map(row).collect();
    rows.sort();
    rows
}

struct Pair<'a> {
    mesh: MeshId,
    single: Arc<SingleCluster>,
    redis: &'a OverRedis<false>,
    holdings: Vec<Holding>,
}

impl Pair<'_> {
    fn on(&self, node: usize) -> [&dyn Cluster; 2] {
        [&*self.single, &*self.redis.nodes[node]]
    }

    fn holding(&self, number: usize) -> Option<&Holding> {
        (!self.holdings.is_empty()).then(|| &self.holdings[number % self.holdings.len()])
    }

    async fn take(&mut self, step: Step) -> [Outcome; 2] {
        let mut outcomes = Vec::new();
        match step {
            Step::Acquire { session: number, node } => {
                let asked = PresenceRecord {
                    node: node.to_string(),
                    ..session(&self.mesh, &format!("s{number}"))
                };
                let mut both = Vec::new();
                for cluster in self.on(node) {
                    let acquired = cluster.acquire(&asked, PLACES).await.unwrap();
                    outcomes.push(outcome(&acquired));
                    both.extend(held(acquired, &asked));
                }
                if let Ok(on) = <[HeldLease; 2]>::try_from(both) {
                    self.holdings.push(Holding { on });
                }
            }
            Step::Reap { limit } => {
                for cluster in self.on(0) {
                    let reaped = cluster.reap(limit).await.unwrap();
                    let of_mesh = reaped.iter().filter(|record| record.mesh == self.mesh);
                    let ids = of_mesh.map(|record| record.id.clone()).collect();
                    outcomes.push(("reaped", ids));
                }
            }
            Step::Adopt { session: number } => {
                let record = session(&self.mesh, &format!("s{number}"));
                for cluster in self.on(0) {
                    cluster.adopt(std::slice::from_ref(&record)).await.unwrap();
                    outcomes.push(("adopted", Vec::new()));
                }
            }
            Step::Renew { holding, .. }
            | Step::Release { holding, .. }
            | Step::Revoke { holding }
            | Step::AdoptKnown { holding }
            | Step::WriteRecord { holding } => {
                let Some(holding) = self.holding(holding) else {
                    return [("nothing", Vec::new()), ("nothing", Vec::new())];
                };
                for (index, held) in holding.on.iter().enumerate() {
                    let node = match step {
                        Step::Renew { node, .. } | Step::Release { node, .. } => node,
                        _ => 0,
                    };
                    outcomes.push(take_with(self.on(node)[index], held, step).await);
                }
            }
        }
        outcomes.try_into().expect("one answer of each")
    }

    async fn compare(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            let [expected, got] = self.take(*step).await;
            assert_eq!(got, expected, "step {number}: {step:?}");
            tokio::time::sleep(A_MOMENT).await;
            let [single, redis] = self.on(0);
            let expected = rows(&single.directory(&self.mesh).await.unwrap());
            let got = rows(&redis.directory(&self.mesh).await.unwrap());
            assert_eq!(got, expected, "the directory after step {number}: {step:?}");
        }
        self.single.check_invariants();
        self.redis.check_invariants();
    }
}

async fn take_with(cluster: &dyn Cluster, held: &HeldLease, step: Step) -> Outcome {
    let lease = &held.lease;
    let this = || vec![lease.presence.clone()];
    match step {
        Step::Renew { node, .. } => {
            let record = PresenceRecord { node: node.to_string(), ..(*held.record).clone() };
            let held = HeldLease { lease: lease.clone(), record: Arc::new(record) };
            let replaced = cluster.renew(std::slice::from_ref(&held)).await.unwrap();
            ("replaced", replaced.into_iter().map(|lease| lease.presence).collect())
        }
        Step::Release { how, .. } => match cluster.release(lease, how).await.unwrap() {
            true => ("released", this()),
            false => ("not held", this()),
        },
        Step::Revoke { .. } => {
            cluster.revoke(&lease.mesh, &lease.presence).await.unwrap();
            ("revoked", this())
        }
        Step::AdoptKnown { .. } => {
            cluster.adopt(&[(*held.record).clone()]).await.unwrap();
            ("adopted", this())
        }
        _ => {
            let record =
                PresenceRecord { summary: Some("written".to_owned()), ..(*held.record).clone() };
            cluster.write_record(lease, &record).await.unwrap();
            ("written", this())
        }
    }
}

#[test]
fn the_scripts_answer_as_the_books_do() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(OverRedis::<false>::start(LONG));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new(config).run(&vec(step(), 1..STEPS_MAX), |steps| {
        runtime.block_on(async {
            // What earlier cases left over would count against the limits.
            redis.nodes[0].reap(1000).await.unwrap();
            let (single, _events) = SingleCluster::new(LONG);
            let mesh = MeshId::generate();
            let holdings = Vec::new();
            Pair { mesh, single, redis: &redis, holdings }.compare(&steps).await;
        });
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
}
