//! The walk along a mesh's audit chain, for peers, operators and exports alike.
//!
//! A page is read at a time, so that what is held is bounded however long the chain is.
//! A walk must never write, nor hold a connection between two pages.

use super::{AuditRecord, AuditTrail, StoreError};
use crate::audit::{ChainVerifier, Verdict};
use crate::id::MeshId;

/// Rows read at once.
const PAGE_ROWS: i64 = 1000;

/// Hands the rows after that one to `visit`, oldest first and a page at a time, until
/// there are no more or `visit` wants none. Says whether the end was reached.
///
/// # Errors
/// The store's, or that of `visit`.
pub async fn walk<E: From<StoreError>>(
    store: &dyn AuditTrail,
    mesh: &MeshId,
    mut after: i64,
    mut visit: impl FnMut(&[AuditRecord]) -> Result<bool, E>,
) -> Result<bool, E> {
    loop {
        let page = store.after(mesh, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(true) };
        after = last.id;
        if !visit(&page)? {
            return Ok(false);
        }
    }
}

/// Verifies a whole chain.
///
/// # Errors
/// The store's.
pub async fn verify(store: &dyn AuditTrail, mesh: &MeshId) -> Result<Verdict, StoreError> {
    let mut chain = ChainVerifier::new(mesh.as_str());
    let whole = walk(store, mesh, i64::MIN, |page| {
        page.iter().for_each(|row| _ = chain.push(row.as_link()));
        Ok::<_, StoreError>(true)
    });
    whole.await?;
    Ok(chain.finish())
}
