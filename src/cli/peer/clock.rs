//! `peer clock`: the mesh's simulation clock.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{WhoArgs, output};
use crate::client::ClientError;
use crate::protocol::{ClockStatus, GetClock, PauseClock, ResumeClock, SetClock};

/// Arguments of `peer clock`.
#[derive(Debug, Args)]
pub(crate) struct ClockArgs {
    /// What to do with the clock.
    #[command(subcommand)]
    pub(crate) verb: ClockVerb,
}

/// What a peer can do with its mesh's clock.
#[derive(Debug, Subcommand)]
pub(crate) enum ClockVerb {
    /// Show how it is
    Show(WhoArgs),
    /// Set it going, or change its speed
    Set(SetArgs),
    /// Stop it where it is
    Pause(WhoArgs),
    /// Let it go on
    Resume(WhoArgs),
}

/// Arguments of `peer clock set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Minutes of the simulation in one minute: 1 to 100
    pub(crate) speed: f64,
    /// Who sets it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(args: &ClockArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let who = match &args.verb {
        ClockVerb::Show(who) | ClockVerb::Pause(who) | ClockVerb::Resume(who) => who,
        ClockVerb::Set(args) => &args.who,
    };
    let kept = who.choose(data_dir)?;
    let (client, _inbox) = who.visit(&kept).await?;
    let answer: Result<ClockStatus, ClientError> = match &args.verb {
        ClockVerb::Show(_) => client.ask(&GetClock {}).await,
        ClockVerb::Set(args) => client.ask(&SetClock { speed: Some(args.speed) }).await,
        ClockVerb::Pause(_) => client.ask(&PauseClock {}).await,
        ClockVerb::Resume(_) => client.ask(&ResumeClock {}).await,
    };
    client.close().await;
    let status = answer?;
    output::answer(json, &status, &sentence(&status))?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(status: &ClockStatus) -> String {
    let ClockStatus { speed, paused, tick, sim_time, started_at } = status;
    if speed.as_f64() == 0.0 {
        return "the mesh has no clock; `peer clock set SPEED` makes one".to_owned();
    }
    let how = if *paused { "stands" } else { "goes" };
    format!(
        "it is {sim_time}, after {tick} ticks since {started_at}; the clock {how}, at speed {}",
        speed.as_f64()
    )
}
