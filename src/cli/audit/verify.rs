//! `claudemesh-broker audit verify`: whether a chain is whole, and still the one that was
//! noted elsewhere.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::anchor::Known;
use super::{actor, key};
use crate::audit::{
    AnchorError, ChainVerifier, HeadError, Mismatch, NewestHead, SignedHeads, Verdict,
};
use crate::auth::is_public_key;
use crate::cli::{Failure, output};
use crate::config::Config;
use crate::id::Key;
use crate::store::{AuditRecord, Mesh, MissingRows, Stores, chain};

/// What a chain is checked against.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The mesh's slug or id
    mesh: String,
    /// A head that was noted elsewhere: the hash that row --at must have
    #[arg(long, value_name = "HASH", requires = "at")]
    head: Option<String>,
    /// The number of the row whose hash --head is
    #[arg(long, value_name = "ROW", requires = "head")]
    at: Option<i64>,
    /// A file of anchors, as `audit anchor --json` prints them: each is checked
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Believe anchors, and heads that are signed in the chain, by this public key alone,
    /// several by repeating it, and want one at least; not given: that of AUDIT_KEY, and
    /// without one whichever key an anchor or a head names
    #[arg(long, value_name = "HEX")]
    key: Vec<String>,
}

impl VerifyArgs {
    pub(super) fn mesh(&self) -> &str {
        &self.mesh
    }

    fn trusted(&self, config: &Config) -> anyhow::Result<Vec<Key>> {
        if let Some(odd) = self.key.iter().find(|key| !is_public_key(&key.to_lowercase())) {
            let message = format!("{odd:?} is no public key: give 64 hex digits");
            return Err(Failure::new("invalid_key", message).into());
        }
        if self.key.is_empty() {
            return Ok(key::configured(config)?.iter().map(|key| key.public_key()).collect());
        }
        Ok(self.key.iter().map(|key| Key::from(key.to_lowercase())).collect())
    }

    fn known(&self, mesh: &Mesh, trusted: &[Key]) -> anyhow::Result<Known> {
        let mut known = Known::default();
        if let (Some(head), Some(at)) = (&self.head, self.at) {
            known.note(at, &head.to_lowercase(), None);
        }
        if let Some(file) = &self.anchor {
            known.read(file, mesh, trusted)?;
        }
        Ok(known)
    }
}

/// What is wrong, the worst first.
enum Problem {
    Broken(Box<AuditRecord>),
    Downgraded(i64),
    Mismatch(Mismatch),
    Head(i64, HeadError),
    Missing(MissingRows),
    Refused(i64, AnchorError),
    Headless,
}

impl Problem {
    /// Scripts compare the word, which is stable.
    const fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Downgraded(_) => "downgraded",
            Self::Missing(missing) if missing.genesis => "genesis_missing",
            Self::Mismatch(Mismatch::Missing(_)) => "anchor_missing",
            Self::Mismatch(Mismatch::OtherHash(_)) => "anchor_hash",
            Self::Mismatch(Mismatch::OtherNames(_)) => "anchor_names",
            Self::Head(_, HeadError::Unreadable) => "head_unreadable",
            Self::Head(_, HeadError::OtherRow) => "head_row",
            Self::Head(_, HeadError::Signature(AnchorError::Unsigned)) => "head_unsigned",
            Self::Head(_, HeadError::Signature(AnchorError::OtherKey)) => "head_key",
            Self::Head(_, HeadError::Signature(AnchorError::BadSignature)) => "head_signature",
            Self::Headless => "heads_missing",
            Self::Missing(missing) if missing.messages > 0 => "messages_missing",
            Self::Missing(missing) if missing.all => "all_missing",
            Self::Missing(_) => "numbers_missing",
            Self::Refused(_, AnchorError::Unsigned) => "anchor_unsigned",
            Self::Refused(_, AnchorError::OtherKey) => "anchor_key",
            Self::Refused(_, AnchorError::BadSignature) => "anchor_signature",
        }
    }

    /// The row that it is about, if there is one.
    fn row(&self) -> Option<i64> {
        match self {
            Self::Broken(row) => Some(row.id),
            Self::Missing(missing) if missing.genesis => None,
            Self::Missing(missing) => missing.first,
            Self::Headless => None,
            Self::Mismatch(
                Mismatch::Missing(id) | Mismatch::OtherHash(id) | Mismatch::OtherNames(id),
            )
            | Self::Downgraded(id)
            | Self::Head(id, _)
            | Self::Refused(id, _) => Some(*id),
        }
    }

    fn sentence(&self, slug: &str, head: &str) -> String {
        match self {
            Self::Broken(row) => format!(
                "the chain of {slug} is broken at row {} ({} by {}, {}): that row was altered or \
                 put in, or the one before it was removed; its last good hash is {head}",
                row.id,
                row.event_type,
                actor(row),
                row.created_at,
            ),
            Self::Mismatch(Mismatch::Missing(id)) => format!(
                "the chain of {slug} has no row {id}, which it had when that was noted: its end \
                 was cut off, or it was written anew; its last hash is {head}"
            ),
            Self::Mismatch(Mismatch::OtherHash(id)) => format!(
                "row {id} of the chain of {slug} has another hash than was noted: that row, or one \
                 before it, was altered and what follows written anew"
            ),
            Self::Mismatch(Mismatch::OtherNames(id)) => format!(
                "row {id} of the chain of {slug} has another second hash than was noted: the name \
                 of a session in it, or in a row before it, was altered"
            ),
            Self::Downgraded(id) => format!(
                "row {id} of the chain of {slug} lacks the hash over its number that rows before it \
                 have: an earlier release or another program wrote it, or somebody wrote the chain \
                 anew without them"
            ),
            Self::Missing(MissingRows { genesis: true, .. }) => format!(
                "the chain of {slug} does not begin with the row that was written when the mesh \
                 was made: its beginning, or all of it, was removed or written anew"
            ),
            Self::Head(id, error) => {
                let what = match error {
                    HeadError::Unreadable => "what it carries is none",
                    HeadError::OtherRow => {
                        "it is of another row than the one before it: the chain was written anew"
                    }
                    HeadError::Signature(AnchorError::Unsigned) => "nobody has signed it",
                    HeadError::Signature(AnchorError::OtherKey) => {
                        "it is by another key than the one to believe"
                    }
                    HeadError::Signature(AnchorError::BadSignature) => "its signature is wrong",
                };
                format!("the signed head in row {id} of the chain of {slug} proves nothing: {what}")
            }
            Self::Headless => format!(
                "nothing in the chain of {slug} is signed by the key to believe: its signed heads \
                 were removed, or no node has had that key"
            ),
            Self::Missing(MissingRows { messages, first: Some(first), .. }) => format!(
                "the chain of {slug} lacks the rows of {} that the broker keeps, the first of \
                 them row {first}: its end was cut off there or before, or it was written anew; \
                 its last hash is {head}",
                output::count(u64::try_from(*messages).unwrap_or_default(), "message"),
            ),
            Self::Missing(MissingRows { all: true, .. }) => format!(
                "the chain of {slug} has no rows, and peers have been there: all of it was removed"
            ),
            Self::Missing(MissingRows { numbers, .. }) => format!(
                "{} of those that this database has given numbers to are not in it: they were at \
                 the end of the chain of {slug}, or of another mesh",
                output::count(u64::try_from(*numbers).unwrap_or_default(), "audit row"),
            ),
            Self::Refused(id, AnchorError::Unsigned) => {
                format!("the anchor of {slug} at row {id} is not signed: it proves nothing")
            }
            Self::Refused(id, AnchorError::OtherKey) => format!(
                "the anchor of {slug} at row {id} is by another key than the one to believe: it \
                 proves nothing"
            ),
            Self::Refused(id, AnchorError::BadSignature) => format!(
                "the signature of the anchor of {slug} at row {id} is wrong: the anchor was \
                 altered, or is not by the key that it names"
            ),
        }
    }
}

/// Walks the chain and says what was found.
pub(super) async fn run(
    store: &Stores,
    mesh: &Mesh,
    args: &VerifyArgs,
    config: &Config,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let trusted = args.trusted(config)?;
    let mut known = args.known(mesh, &trusted)?;
    let mut heads = SignedHeads::new(&mesh.id, trusted);
    let mut verifier = ChainVerifier::new(mesh.id.as_str());
    let (mut broken, mut mismatch, mut bad_head) = (None, None, None);
    let walked = chain::walk(&*store.audit, &mesh.id, i64::MIN, |page| {
        for row in page {
            let link = row.as_link();
            if !verifier.push(link) && broken.is_none() {
                broken = Some(Box::new(row.clone()));
            }
            if let Err(found) = known.heads.meet(&link) {
                mismatch.get_or_insert(found);
            }
            if let Err(error) = heads.meet(&link) {
                bad_head.get_or_insert(Problem::Head(row.id, error));
            }
        }
        anyhow::Ok(true)
    });
    walked.await?;
    let mismatch = mismatch.or_else(|| known.heads.finish().err());
    let missing = store.audit.missing(&mesh.id).await?;
    let problem = broken
        .map(Problem::Broken)
        .or(mismatch.map(Problem::Mismatch))
        .or(bad_head)
        .or(verifier.downgraded_at().map(Problem::Downgraded))
        .or((missing != MissingRows::default()).then_some(Problem::Missing(missing)))
        .or(known.refused.map(|(row, error)| Problem::Refused(row, error)))
        .or((!args.key.is_empty() && known.signed_by.is_empty() && heads.count() == 0)
            .then_some(Problem::Headless));
    for key in heads.signed_by() {
        known.note_signer(key);
    }
    let head = verifier.head().to_owned();
    let name_head = verifier.name_head();
    let verdict = verifier.finish();
    if json {
        output::json(&json!({
            "meshId": mesh.id,
            "slug": mesh.slug,
            "valid": problem.is_none(),
            "entries": verdict.entries,
            "brokenAt": verdict.broken_at,
            "head": head,
            "namedEntries": verdict.named,
            "nameHead": name_head,
            "anchors": known.count,
            "signedHeads": heads.count(),
            "signedRow": heads.newest().map(|newest| newest.row_id),
            "signedAt": heads.newest().map(|newest| newest.taken_at),
            "rowsSince": heads.newest().map(|newest| newest.rows_since),
            "signedBy": known.signed_by,
            "problem": problem.as_ref().map(Problem::code),
            "problemAt": problem.as_ref().and_then(Problem::row),
        }))?;
    } else if problem.is_none() {
        output::line(&whole(mesh, &verdict, (&head, name_head), &known, &heads))?;
    }
    let Some(problem) = problem else { return Ok(ExitCode::SUCCESS) };
    // Not a failure of the command: the answer is that the chain is not what it should be.
    let text = problem.sentence(&mesh.slug, &head);
    let _ = writeln!(io::stderr(), "{}", output::printable(&text));
    Ok(ExitCode::FAILURE)
}

/// What people are told of a chain that is whole.
fn whole(
    mesh: &Mesh,
    verdict: &Verdict,
    (head, name_head): (&str, Option<String>),
    known: &Known,
    signed: &SignedHeads,
) -> String {
    let rows = output::count(verdict.entries, "row");
    let mut text = format!("The chain of {} is whole: {rows}.\n  head  {head}", mesh.slug);
    if let Some(name_head) = name_head {
        text.push_str(&format!("\n  names {name_head}"));
    }
    if verdict.named < verdict.entries {
        let unnamed = output::count(verdict.entries - verdict.named, "row");
        text.push_str(&format!(
            "\n  the names of sessions in {unnamed} prove nothing: an earlier release wrote them"
        ));
    }
    if known.count > 0 {
        let heads = output::count(known.count, "head");
        text.push_str(&format!("\n  it has what was noted elsewhere: {heads}"));
    }
    if let Some(NewestHead { row_id, taken_at, rows_since }) = signed.newest() {
        text.push_str(&format!(
            "\n  signed by nodes: {}, the newest at row {row_id} ({taken_at}), {} ago",
            output::count(signed.count(), "head"),
            output::count(rows_since, "row"),
        ));
    }
    for key in &known.signed_by {
        text.push_str(&format!("\n  signed by {key}"));
    }
    text
}
