//! `deploy/fly/setup.sh`, against a `fly` that only remembers.

use std::process::{Command, Output};

use tempfile::TempDir;

use super::{root, text_of};
use crate::harness::executable::write_program;

/// As much of `fly` as the script uses; what changes something is written down.
/// A secret is listed as flyctl does it: with what stands in the file `mark`
/// before its name, which is `*` until the app's first deploy.
const FLY: &str = r#"#!/usr/bin/env bash
set -euo pipefail
cd "$FAKE"
app=none
for i in $(seq 1 $#); do
  if [ "${!i}" = --app ]; then next=$((i + 1)); app="${!next}"; fi
done
case "$1 $2" in
  "auth whoami") echo me@example.org ;;
  "apps list") printf 'NAME │ OWNER\n'; cat apps ;;
  "apps create") echo "$3 │ personal" >>apps; echo "$*" >>changes ;;
  "volumes list") printf 'ID │ STATE │ NAME\n'; cat "volumes-$app" 2>/dev/null || true ;;
  "volumes create") echo "vol_1 │ created │ $3" >>"volumes-$app"; echo "$*" >>changes ;;
  "secrets list")
    printf '   NAME │ DIGEST │ STATUS\n'
    for file in secrets-"$app"-*; do
      [ ! -e "$file" ] || printf ' %s %s │ 5f4d │ State\n' "$(cat mark)" "${file##*-}"
    done ;;
  "secrets import")
    line="$(cat)"
    printf %s "${line#*=}" >"secrets-$app-${line%%=*}"
    echo "$*" >>changes ;;
  *) echo "unknown: $*" >&2; exit 1 ;;
esac
"#;

/// The secrets that it gives to the broker.
pub(super) fn broker_secrets(script: &str) -> Vec<String> {
    let calls = script.lines().filter_map(|line| line.trim().strip_prefix("set_secret "));
    let of_broker = calls.filter_map(|line| line.strip_prefix("\"$broker_app\" "));
    of_broker.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned)).collect()
}

/// An account on Fly.io, without apps.
struct Account(TempDir);

impl Account {
    fn new() -> Self {
        let account = Self(tempfile::tempdir().expect("a folder"));
        write_program(&account.0.path().join("fly"), FLY);
        std::fs::write(account.0.path().join("apps"), "").expect("a file");
        account.mark("*");
        account
    }

    /// What stands before the names of secrets from now on.
    fn mark(&self, mark: &str) {
        std::fs::write(self.0.path().join("mark"), mark).expect("a file");
    }

    fn setup(&self, database_url: Option<&str>) -> Output {
        let folder = self.0.path();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a PATH"));
        let mut command = Command::new("bash");
        command.arg(root().join("deploy/fly/setup.sh")).env_clear();
        command.env("PATH", path).env("FAKE", folder);
        command.envs(database_url.map(|url| ("DATABASE_URL", url)));
        command.output().expect("bash")
    }

    fn changes(&self) -> usize {
        std::fs::read_to_string(self.0.path().join("changes")).unwrap_or_default().lines().count()
    }

    fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(format!("secrets-{name}"))).expect(name)
    }

    fn password(&self) -> String {
        self.secret("claudemesh-valkey-VALKEY_PASSWORD")
    }

    /// The broker finds its way to Valkey.
    fn agrees(&self) {
        let url = format!("redis://:{}@claudemesh-valkey.internal:6379", self.password());
        assert_eq!(self.secret("claudemesh-broker-REDIS_URL"), url);
    }
}

#[test]
fn it_adds_what_is_missing_and_nothing_the_second_time() {
    let account = Account::new();
    let first = account.setup(None);
    assert!(!first.status.success(), "there is no database yet");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(said.contains("DATABASE_URL=postgres://"), "{said}");
    let before = account.changes();
    assert_eq!(before, 6, "two apps, a volume, a password for both, a token");

    let second = account.setup(Some("postgres://u:hunter2@db/mesh"));
    assert!(second.status.success(), "{second:?}");
    assert_eq!(account.changes(), before + 1, "only what was missing");
    let third = account.setup(None);
    assert!(third.status.success(), "{third:?}");
    assert_eq!(account.changes(), before + 1);

    let shown = format!(
        "{first:?}{second:?}{third:?}{}",
        std::fs::read_to_string(account.0.path().join("changes")).expect("changes")
    );
    for value in [&account.password(), "hunter2", &account.secret("claudemesh-broker-HOOK_TOKEN")] {
        assert!(!shown.contains(value), "a secret is an argument or was printed");
    }
    account.agrees();
}

#[test]
fn run_again_at_any_time_it_leaves_the_broker_its_valkey() {
    let account = Account::new();
    assert!(account.setup(Some("postgres://u:p@db/mesh")).status.success());
    let (password, changes) = (account.password(), account.changes());
    // Staged, deployed to some of the machines, deployed to all of them.
    for mark in ["*", "!", ""] {
        account.mark(mark);
        let again = account.setup(None);
        assert!(again.status.success(), "{mark}: {again:?}");
        assert_eq!(account.changes(), changes, "{mark}: {again:?}");
        // Valkey may have been deployed before: it has that one.
        assert_eq!(account.password(), password, "{mark}");
        account.agrees();
    }
}

#[test]
fn shellcheck_finds_nothing() {
    let script = root().join("deploy/fly/setup.sh");
    if let Ok(said) = Command::new("shellcheck").arg(&script).output() {
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    }
    assert!(text_of("deploy/fly/setup.sh").starts_with("#!/usr/bin/env bash"));
}
