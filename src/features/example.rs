//! The smallest request there is, as CONTRIBUTING.md shows how to write one: a test
//! holds that page to these lines.

use serde::{Deserialize, Serialize};

use super::dispatch::{Entry, requests};
use super::{Context, Refusal};
use crate::protocol::{Answer, Ask};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Whoami {}

impl Ask for Whoami {
    const TYPE: &'static str = "whoami";
    type Answer = Me;
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) name: String,
}

impl Answer for Me {
    const TYPE: &'static str = "me";
}

async fn whoami(context: &Context<'_>, _: Whoami) -> Result<Me, Refusal> {
    let member = context.room.member(&context.session.member);
    let member = member.ok_or_else(|| Refusal::new("not_found", "nobody knows you"))?;
    Ok(Me { name: member.display_name.clone() })
}

pub(super) const REQUESTS: &[Entry] = requests! {
    Whoami => whoami, |_, _| 1;
};
