//! `deploy/fly/setup.sh`, against a `fly` that only remembers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::{read, root};

/// As much of `fly` as the script uses; what changes something is written down.
const FLY: &str = r#"#!/usr/bin/env bash
set -euo pipefail
cd "$FAKE"
app=none
for i in $(seq 1 $#); do
  if [ "${!i}" = --app ]; then next=$((i + 1)); app="${!next}"; fi
done
case "$1 $2" in
  "auth whoami") echo me@example.org ;;
  "apps list") printf 'NAME OWNER\n'; cat apps ;;
  "apps create") echo "$3 personal" >>apps; echo "$*" >>changes ;;
  "volumes list") cat "volumes-$app" 2>/dev/null || true ;;
  "volumes create") echo "vol_1 $3" >>"volumes-$app"; echo "$*" >>changes ;;
  "secrets list") printf 'NAME DIGEST\n'; cat "secrets-$app" 2>/dev/null || true ;;
  "secrets import")
    line="$(cat)"
    echo "${line%%=*} digest" >>"secrets-$app"
    echo "${line#*=}" >>values
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

fn run(folder: &Path, database_url: Option<&str>) -> Output {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a PATH"));
    let mut command = Command::new("bash");
    command.arg(root().join("deploy/fly/setup.sh")).env_clear();
    command.env("PATH", path).env("FAKE", folder);
    command.envs(database_url.map(|url| ("DATABASE_URL", url)));
    command.output().expect("bash")
}

fn lines(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn it_adds_what_is_missing_and_nothing_the_second_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let fake = folder.join("fly");
    std::fs::write(&fake, FLY).expect("a file");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(folder.join("apps"), "").expect("a file");

    let first = run(folder, None);
    assert!(!first.status.success(), "there is no database yet");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(said.contains("DATABASE_URL=postgres://"), "{said}");
    let before = lines(folder, "changes").len();
    assert_eq!(before, 6, "two apps, a volume, a password for both, a token");

    let second = run(folder, Some("postgres://u:hunter2@db/mesh"));
    assert!(second.status.success(), "{second:?}");
    assert_eq!(lines(folder, "changes").len(), before + 1, "only what was missing");
    let third = run(folder, None);
    assert!(third.status.success(), "{third:?}");
    assert_eq!(lines(folder, "changes").len(), before + 1);

    let values = lines(folder, "values");
    let shown = format!("{first:?}{second:?}{third:?}{:?}", lines(folder, "changes"));
    for value in &values {
        assert!(!shown.contains(value.as_str()), "a secret is an argument or was printed");
    }
    let password = &values[0];
    assert_eq!(values[1], format!("redis://:{password}@claudemesh-valkey.internal:6379"));
}

#[test]
fn shellcheck_finds_nothing() {
    let script = root().join("deploy/fly/setup.sh");
    if let Ok(said) = Command::new("shellcheck").arg(&script).output() {
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    }
    assert!(read("deploy/fly/setup.sh").starts_with("#!/usr/bin/env bash"));
}
