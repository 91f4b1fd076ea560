//! What Postgres and the driver answer, as the store's errors. Only the
//! server's primary message is passed on: the detail may quote rows.

use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// A statement that did not work.
pub(in crate::store) fn refused(error: sqlx::Error) -> StoreError {
    use sqlx::Error;
    match error {
        Error::Database(error) => match error.try_downcast::<PgDatabaseError>() {
            Ok(error) => by_code(error.code(), error.message(), error.constraint()),
            Err(_) => StoreError::Broken("the driver failed".to_owned()),
        },
        // The standard library has no kind for it.
        Error::Io(error) if error.to_string().contains("lookup address") => unavailable(
            "the host that DATABASE_URL names is not known: see its spelling, and the name \
             service of this machine",
        ),
        Error::Io(error) => StoreError::Unavailable(format!(
            "the connection to Postgres failed ({}): see whether it runs and can be reached",
            error.kind()
        )),
        Error::Tls(_) => unavailable(
            "Postgres did not agree on TLS: see sslmode and sslrootcert in DATABASE_URL",
        ),
        Error::Protocol(_) => unavailable("the connection to Postgres broke off"),
        Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
            unavailable("the store is closed")
        }
        // The cause may quote the value.
        Error::ColumnDecode { index, .. } => unreadable(&index),
        Error::ColumnNotFound(column) => unreadable(&column),
        Error::RowNotFound => StoreError::NotFound("there is no such row".to_owned()),
        _ => StoreError::Broken("the driver failed".to_owned()),
    }
}

/// A state that may pass.
pub(in crate::store) fn unavailable(sentence: &str) -> StoreError {
    StoreError::Unavailable(sentence.to_owned())
}

/// A column that holds what it must not.
pub(in crate::store) fn unreadable(column: &str) -> StoreError {
    StoreError::Broken(format!("column `{column}` holds what this release cannot read"))
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html
fn by_code(code: &str, message: &str, constraint: Option<&str>) -> StoreError {
    let constraint = constraint.unwrap_or_default();
    match code {
        "08P01" if message.contains("startup parameter") => unavailable(
            "a pooler such as PgBouncer is in between, and shares sessions: set \
             DATABASE_STATEMENT_CACHE=0",
        ),
        "23505" => StoreError::Conflict(match constraint {
            "mesh_slug_unique" => slug_taken(),
            _ => format!("already there: {constraint}"),
        }),
        "23503" if constraint.contains("user") || constraint.contains("created_by") => {
            StoreError::Conflict(
                "this database belongs to a dashboard, whose users own the meshes: do it there"
                    .to_owned(),
            )
        }
        "23503" => StoreError::NotFound("the mesh or the member does not exist".to_owned()),
        "25006" => unavailable("Postgres is read-only: point DATABASE_URL to the primary"),
        "28000" | "28P01" => {
            unavailable("Postgres refused the user or the password of DATABASE_URL")
        }
        "3D000" => unavailable("the database that DATABASE_URL names does not exist: create it"),
        "3F000" | "42P01" | "42703" | "42883" => StoreError::Broken(format!(
            "{message} ({code}): run `claudemesh-broker migrate` against this database"
        )),
        "40001" | "40P01" => unavailable("another transaction was in the way: try again"),
        "42501" => {
            StoreError::Broken(format!("{message} ({code}): grant it to the user of DATABASE_URL"))
        }
        "53100" => unavailable("the disk of Postgres is full: make room"),
        "53300" => unavailable(
            "Postgres has no connection left: raise its max_connections, or lower \
             DATABASE_POOL_MAX",
        ),
        "55P03" => unavailable("a lock was not free in time: see what holds it"),
        "57014" => unavailable("a statement took too long: see what Postgres is busy with"),
        _ => match code.get(..2) {
            // Connection trouble, lack of resources, an operator's hand (a shutdown,
            // a start-up), a failing disk.
            Some("08" | "53" | "57" | "58") => {
                StoreError::Unavailable(format!("Postgres said: {message} ({code})"))
            }
            // `idle_in_transaction_session_timeout` among others.
            Some("25") => StoreError::Unavailable(format!("Postgres said: {message} ({code})")),
            Some("22") => StoreError::Broken(format!("Postgres cannot store a value ({code})")),
            _ => StoreError::Broken(format!("{message} ({code})")),
        },
    }
}

/// Two meshes of one name.
pub(in crate::store) fn slug_taken() -> String {
    "a mesh with this slug exists: choose another, or archive that one first".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_can_be_retried_and_nothing_else() {
        for code in [
            "08006", "25006", "25P03", "28P01", "40001", "40P01", "53100", "53200", "53300",
            "55P03", "57014", "57P01", "57P03", "58030",
        ] {
            let error = by_code(code, "m", None);
            assert!(error.is_retryable(), "{code}: {error}");
        }
        for code in ["22P02", "23502", "23503", "23505", "42501", "42601", "42P01", "XX000"] {
            let error = by_code(code, "m", None);
            assert!(!error.is_retryable(), "{code}: {error}");
        }
    }

    #[test]
    fn a_host_that_is_not_known_and_a_pooler_are_said_to_be() {
        let lookup = "failed to lookup address information: Name or service not known";
        let error = refused(sqlx::Error::Io(std::io::Error::other(lookup)));
        assert!(error.is_retryable() && error.to_string().contains("is not known"), "{error}");
        let message = "unsupported startup parameter: options";
        let error = by_code("08P01", message, None);
        assert!(error.to_string().contains("DATABASE_STATEMENT_CACHE=0"), "{error}");
    }

    #[test]
    fn a_value_that_cannot_be_stored_is_not_quoted() {
        let error = by_code("22P02", "invalid input syntax for type json: \"secret\"", None);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
