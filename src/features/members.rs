//! `list_members`.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Context, Refusal};
use crate::id::MemberId;
use crate::limits;
use crate::paging::{Page, from_cursor, page, to_cursor};
use crate::protocol::budget::cut;
use crate::protocol::{ListMembers, MemberListed, MembersList};

/// Members whose certificates are read for one answer.
const ROWS_MAX: usize = 4096;

/// Every member of the mesh, here or away.
pub(super) async fn list(context: &Context<'_>, ask: ListMembers) -> Result<MembersList, Refusal> {
    let Context { parts, room, .. } = context;
    let after = from_cursor::<MemberId>(ask.cursor.as_deref())?;
    let opens = parts.presence.members.open_sealed(room.mesh()).await?;
    let certified_required = parts.presence.members.requires_certificates(room.mesh()).await?;
    let records = room.records();
    let online: HashSet<&MemberId> = records
        .iter()
        .filter(|record| record.online && !record.visitor && record.visible)
        .map(|record| &record.member)
        .collect();
    let mut members = room.members();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    members.retain(|member| after.as_ref().is_none_or(|after| member.id > *after));
    let is_cut = members.len() > ROWS_MAX;
    members.truncate(ROWS_MAX);
    let ids: Vec<MemberId> = members.iter().map(|member| member.id.clone()).collect();
    let certificates = parts.presence.members.certificates(room.mesh(), &ids).await?;
    let Page { rows: members, cursor } = page(
        members,
        |member| member.id.clone(),
        |member| MemberListed {
            member_id: member.id.clone(),
            pubkey: member.key.clone(),
            name: cut(&member.display_name, limits::DISPLAY_NAME_BYTES_MAX).to_owned(),
            role: Cow::Borrowed(member.role.as_str()),
            sealed: opens.contains(&member.id),
            online: online.contains(&member.id),
            certificate: certificates.get(&member.id).cloned(),
        },
    );
    let cursor = cursor.or_else(|| ids.last().filter(|_| is_cut).map(to_cursor));
    let (sealing, more) = (room.sealing(), cursor.is_some());
    Ok(MembersList { sealing, members, certified_required, more, cursor })
}
