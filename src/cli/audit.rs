//! `claudemesh-broker audit`: reads, verifies, anchors and exports a mesh's audit chain.

mod anchor;
mod key;
mod verify;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{lookup, output};
use crate::config::Config;
use crate::store::{AuditRecord, Mesh, Stores, chain};

/// Between two looks for new rows.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

/// What can be done with an audit chain.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the newest rows
    Tail {
        /// The mesh's slug or id
        mesh: String,
        /// How many
        #[arg(short = 'n', long = "lines", default_value_t = 20,
              value_parser = clap::value_parser!(i64).range(0..=10_000))]
        lines: i64,
        /// Go on with new rows as they come, until Ctrl-C; with --json one
        /// object per line
        #[arg(short, long)]
        follow: bool,
        /// Only rows of this type, such as message_sent
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
    },
    /// Check that no row was altered, removed or inserted; and that the chain still has
    /// what was noted elsewhere
    Verify(verify::VerifyArgs),
    /// Print where the chain ends, to be kept outside the database; signed, if AUDIT_KEY
    /// is set
    Anchor {
        /// The mesh's slug or id
        mesh: String,
    },
    /// Tell the public key of AUDIT_KEY, by which anchors are checked, or make a key
    Key {
        /// Make a key in this new file, for AUDIT_KEY to name
        #[arg(long, value_name = "FILE")]
        new: Option<PathBuf>,
    },
    /// Write every row as JSON Lines: one object per line, also without --json
    Export {
        /// The mesh's slug or id
        mesh: String,
        /// To this new file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(crate) async fn run(
    command: AuditCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    if let AuditCommand::Key { new } = &command {
        match new {
            Some(file) => key::make(file, json)?,
            None => key::show(config, json)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    lookup::with_store(config, async |store| match command {
        AuditCommand::Tail { mesh, lines, follow, event_type } => {
            let mesh = lookup::mesh(store, &mesh).await?;
            tail(store, &mesh, &Tail { lines, follow, event_type }, json).await
        }
        AuditCommand::Verify(args) => {
            let mesh = lookup::mesh(store, args.mesh()).await?;
            verify::run(store, &mesh, &args, config, json).await
        }
        AuditCommand::Anchor { mesh } => {
            let mesh = lookup::mesh(store, &mesh).await?;
            anchor::print(store, &mesh, config, json).await?;
            Ok(ExitCode::SUCCESS)
        }
        // Done above: it needs no store.
        AuditCommand::Key { .. } => Ok(ExitCode::SUCCESS),
        AuditCommand::Export { mesh, out } => {
            let mesh = lookup::mesh(store, &mesh).await?;
            export(store, &mesh, out.as_deref(), json).await
        }
    })
    .await
}

struct Tail {
    lines: i64,
    follow: bool,
    event_type: Option<String>,
}

async fn tail(store: &Stores, mesh: &Mesh, ask: &Tail, json: bool) -> anyhow::Result<ExitCode> {
    let filter = ask.event_type.as_deref();
    // The end of the chain comes first, so that nothing between the two is missed.
    let newest = store.audit.before(&mesh.id, None, i64::MAX, 1).await?;
    let mut after = newest.first().map_or(i64::MIN, |row| row.id);
    let (mut rows, total) = store.audit.page(&mesh.id, filter, 0, ask.lines).await?;
    rows.retain(|row| row.id <= after);
    rows.reverse();
    if !ask.follow {
        if json {
            let entries: Vec<Value> = rows.iter().map(describe).collect();
            output::json(&json!({"meshId": mesh.id, "entries": entries, "total": total}))?;
        } else if rows.is_empty() {
            output::line("The chain has no such rows.")?;
        } else {
            print_rows(&rows)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout();
    print_stream(&mut out, &rows, json)?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
        let news = chain::walk(&*store.audit, &mesh.id, after, |page| {
            after = page.last().map_or(after, |row| row.id);
            let wanted = |row: &&AuditRecord| filter.is_none_or(|wanted| row.event_type == wanted);
            print_stream(&mut out, page.iter().filter(wanted), json)?;
            anyhow::Ok(true)
        });
        news.await?;
    }
}

fn print_rows(rows: &[AuditRecord]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        [
            row.id.to_string(),
            row.created_at.to_string(),
            row.event_type.clone(),
            actor(row),
            row.payload.to_string(),
        ]
    });
    output::table(["row", "when", "what", "who", "details"], cells)
}

/// Rows that more will follow: lines, since the widths of a table are not
/// known before its end.
fn print_stream<'a>(
    out: &mut dyn Write,
    rows: impl IntoIterator<Item = &'a AuditRecord>,
    json: bool,
) -> anyhow::Result<()> {
    for row in rows {
        if json {
            out.write_all(output::json_line(&describe(row))?.as_bytes())?;
        } else {
            let text = format!(
                "{:>8}  {}  {:<20}  {}  {}",
                row.id,
                row.created_at,
                row.event_type,
                actor(row),
                row.payload
            );
            writeln!(out, "{}", output::printable(&text))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The actor by enrolled name and key; what its session called itself stands beside.
fn actor(row: &AuditRecord) -> String {
    let name = row.actor_label();
    let key = row.member_key.as_deref().and_then(|key| key.get(..12));
    let key = key.map(|key| format!(" ({key})")).unwrap_or_default();
    let session = row.session_name().filter(|session| *session != name);
    let session = session.map(|session| format!(", as {session:?}")).unwrap_or_default();
    format!("{name}{key}{session}")
}

fn describe(row: &AuditRecord) -> Value {
    json!({
        "id": row.id,
        "meshId": row.mesh,
        "eventType": row.event_type,
        "actorMemberId": row.actor,
        "actor": row.actor_label(),
        "actorPubkey": row.member_key,
        "sessionName": row.session_name(),
        // As the second hash covers it; the others are for reading.
        "actorName": row.actor_name,
        "payload": row.payload,
        "prevHash": row.prev_hash,
        "hash": row.hash,
        "nameHash": row.name_hash.as_deref().map(hex::encode),
        "createdAt": row.created_at,
    })
}

async fn export(
    store: &Stores,
    mesh: &Mesh,
    file: Option<&Path>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut out: Box<dyn Write> = match file {
        Some(path) => {
            let file = File::create_new(path).with_context(|| {
                format!("cannot create {}; name a file that does not exist", path.display())
            })?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let mut entries = 0_usize;
    let walked = chain::walk(&*store.audit, &mesh.id, i64::MIN, |page| {
        entries += page.len();
        page.iter().try_for_each(|row| {
            anyhow::Ok(out.write_all(output::json_line(&describe(row))?.as_bytes())?)
        })?;
        anyhow::Ok(true)
    });
    walked.await?;
    out.flush()?;
    if let Some(path) = file {
        let shown = path.display().to_string();
        let object = json!({"meshId": mesh.id, "file": shown, "entries": entries});
        let text = format!("{} written to {shown}.", output::count(entries, "row"));
        output::answer(json, &object, &text)?;
    }
    Ok(ExitCode::SUCCESS)
}
