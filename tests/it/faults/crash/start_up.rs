//! Data on which it cannot start: a sentence, and an exit code that is not 0.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::harness::executable::copy_program;
use crate::harness::program::{Answer, Place, Serving};

const NOBODY: u32 = 65_534;

/// A place with a database in it, all of it in the one file.
fn lived_in() -> (Place, PathBuf) {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let file = place.path().join("broker.db");
    assert!(file.exists() && !place.path().join("broker.db-wal").exists());
    (place, file)
}

/// It does not start: the error's code and sentence.
fn refusal(place: &Place) -> (String, String) {
    let args = ["serve", "--json"];
    let mut command = place.command(&args);
    command.env("BROKER_PORT", "0");
    Answer::of(&command.output().expect("the program starts"), &args).failure()
}

async fn execute(file: &std::path::Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the file");
    sqlx::query(sql).execute(&mut connection).await.expect("written");
    connection.close().await.expect("closed");
}

#[test]
fn a_file_that_is_no_database() {
    let place = Place::new();
    std::fs::write(place.path().join("broker.db"), "a letter\n".repeat(2_000)).expect("written");
    let (_, message) = refusal(&place);
    assert!(
        message.contains("broker.db") && message.contains("not a SQLite database"),
        "{message}"
    );
}

#[test]
fn a_damaged_database() {
    let (place, file) = lived_in();
    // All but the first page, which says that it is a database.
    let mut opened = std::fs::File::options().read(true).write(true).open(&file).expect("opened");
    let mut head = [0; 18];
    opened.read_exact(&mut head).expect("a header");
    let page_bytes = u64::from(u16::from_be_bytes([head[16], head[17]]));
    let bytes = opened.metadata().expect("there").len();
    assert!(bytes > 4 * page_bytes, "{bytes} bytes in pages of {page_bytes}");
    opened.seek(SeekFrom::Start(page_bytes)).expect("there");
    let rest = usize::try_from(bytes - page_bytes).expect("small");
    opened.write_all(&vec![0xa5; rest]).expect("written");
    drop(opened);
    let (_, message) = refusal(&place);
    assert!(message.contains("damaged"), "{message}");
}

#[tokio::test]
async fn a_database_that_another_program_made() {
    let (place, file) = lived_in();
    execute(&file, "update _sqlx_migrations set checksum = x'00' where version = 1").await;
    let (_, message) = refusal(&place);
    assert!(message.contains("migration 0001 is not the one"), "{message}");
}

/// Migrations only add before a release that needs more: after a step back to
/// the release before, it goes on.
#[tokio::test]
async fn a_database_that_a_newer_release_has_added_to_is_good() {
    let (place, file) = lived_in();
    execute(&file, "alter table mesh add column of_tomorrow text").await;
    execute(
        &file,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of tomorrow', true, x'01', 0)",
    )
    .await;
    let broker = Serving::start(&place);
    assert_eq!(broker.banner["status"], "listening");
    assert_eq!(place.json(&["mesh", "list"])["meshes"][0]["slug"], "team");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

/// As `root` the program may write anywhere: then it runs as nobody, from a
/// copy that nobody can reach.
fn without_rights(place: &Place, program: &Place) -> Command {
    if !geteuid().is_root() {
        return place.command(&["serve", "--json"]);
    }
    let copy = program.path().join("claudemesh-broker");
    copy_program(env!("CARGO_BIN_EXE_claudemesh-broker").as_ref(), &copy);
    std::fs::set_permissions(program.path(), PermissionsExt::from_mode(0o755)).expect("permitted");
    let mut command = Command::new(copy);
    command
        .args(["serve", "--json"])
        .env_clear()
        .env("CLAUDEMESH_DATA_DIR", place.path())
        .env("BROKER_BIND", "127.0.0.1")
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY);
    command
}

#[test]
fn a_database_that_cannot_be_written() {
    let (place, file) = lived_in();
    let program = Place::new();
    let mode = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("permitted");
    };
    for (file_mode, folder_mode) in [(0o444, 0o777), (0o666, 0o555)] {
        mode(&file, file_mode);
        mode(place.path(), folder_mode);
        let mut command = without_rights(&place, &program);
        let output = command.env("BROKER_PORT", "0").output().expect("the program starts");
        let (_, message) = Answer::of(&output, &["serve"]).failure();
        let folder = place.path().display().to_string();
        assert!(message.contains(&folder) && message.contains("read and write"), "{message}");
        assert!(message.contains("ermission denied"), "{message}");
    }
    mode(place.path(), 0o700);
}
