//! Who may moderate: what several features ask before they do anything.

use super::{Context, Refusal};
use crate::store::Role;

/// Whether the caller may moderate: an admin, or the owner.
pub(super) fn is_moderator(context: &Context<'_>) -> bool {
    context
        .room
        .member(&context.session.member)
        .is_some_and(|member| member.role == Role::Admin || member.is_owner)
}

/// Refuses all others.
pub(super) fn only_moderators(context: &Context<'_>, what: &str) -> Result<(), Refusal> {
    let refusal = || Refusal::new("forbidden", format!("only owner or admin can {what}"));
    is_moderator(context).then_some(()).ok_or_else(refusal)
}
