//! `deploy/Dockerfile` without a container engine: the files that its build
//! would see are laid out and compiled by its own commands, and what its last
//! stage holds is run in an empty root, as its user.
//!
//! Not as there: the compiler is this one, it only checks, and its target folder
//! is the tests' own; the program that is put into the root is the tests' own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use dockerfile_parser::{CopyInstruction, Instruction};

use super::{dockerfile, root, text_of};
use crate::harness::executable::write_program;
use crate::harness::ports::free_port;
use crate::harness::postgres::PrivatePostgres;
use crate::harness::program::{Answer, Printing, ask_until, text};
use crate::harness::redis::PrivateRedis;

const PROGRAM: &str = env!("CARGO_BIN_EXE_claudemesh-broker");
/// The user that the image names.
const USER: u32 = 65532;

/// In place of the engine's `cargo`: the same command, checked only.
const CARGO: &str = r#"#!/bin/sh
for word in "$@"; do
  shift
  case "$word" in
    build) set -- "$@" check ;;
    --release) ;;
    *) set -- "$@" "$word" ;;
  esac
done
echo "$*" >>"$SAID"
PATH="$REAL_PATH" exec "$REAL_CARGO" "$@"
"#;

/// A line of `.dockerignore`.
struct Pattern {
    parts: Vec<String>,
    is_exception: bool,
}

fn patterns() -> Vec<Pattern> {
    let text = text_of(".dockerignore");
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            assert!(!line.contains(['?', '[', '\\']), "not understood here: {line}");
            let (is_exception, path) =
                line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
            let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
            Pattern { parts: parts.map(str::to_owned).collect(), is_exception }
        })
        .collect()
}

fn is_word(pattern: &str, word: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == word,
        Some((before, after)) => word.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && is_word(after, &rest[at..]))
        }),
    }
}

/// Whether the pattern is about the path or a folder above it.
fn is_about(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, _) => true,
        (Some((first, more)), _) if first == "**" => {
            (0..=path.len()).any(|at| is_about(more, &path[at..]))
        }
        (Some((first, more)), Some((name, rest))) => is_word(first, name) && is_about(more, rest),
        (Some(_), None) => false,
    }
}

/// Whether the engine leaves it out: the last pattern that is about it decides.
fn is_left_out(path: &str, patterns: &[Pattern]) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    let about = patterns.iter().rev().find(|pattern| is_about(&pattern.parts, &path));
    about.is_some_and(|pattern| !pattern.is_exception)
}

/// The files under a folder that the engine would be given.
fn context(folder: &str, patterns: &[Pattern], files: &mut Vec<String>) {
    for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let is_out = is_left_out(&path, patterns);
        if entry.file_type().expect("a kind").is_dir() {
            let has_exceptions = patterns.iter().any(|pattern| {
                pattern.is_exception && pattern.parts.join("/").starts_with(&format!("{path}/"))
            });
            if !is_out || has_exceptions {
                context(&path, patterns, files);
            }
        } else if !is_out {
            files.push(path);
        }
    }
}

#[test]
fn the_context_is_what_the_engine_would_be_given() {
    let pattern = |line: &str| Pattern {
        parts: line.trim_start_matches('!').split('/').map(str::to_owned).collect(),
        is_exception: line.starts_with('!'),
    };
    let patterns = ["*", "!src", "!docs/a.json", "src/**/*.new", "**/x*y"].map(pattern);
    for path in ["src/main.rs", "docs/a.json", "src/x/new"] {
        assert!(!is_left_out(path, &patterns), "{path}");
    }
    for path in ["Cargo.toml", "docs/b.json", "target/x", "src/a.new", "src/b/c/a.new", "src/xyy"] {
        assert!(is_left_out(path, &patterns), "{path}");
    }
}

/// A `COPY` from the context: what Docker does, times kept.
fn copy(instruction: &CopyInstruction, context: &[String], to: &Path) {
    let destination = &instruction.destination.content;
    let is_folder = destination.ends_with('/') || instruction.sources.len() > 1;
    for source in &instruction.sources {
        let source = source.content.trim_end_matches('/');
        let mut copied = 0;
        for file in context {
            let target = if file == source {
                let name = if is_folder { Path::new(file).file_name() } else { None };
                name.map_or_else(|| to.join(destination), |name| to.join(destination).join(name))
            } else if let Some(rest) = file.strip_prefix(&format!("{source}/")) {
                to.join(destination).join(rest)
            } else {
                continue;
            };
            std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
            std::fs::copy(root().join(file), &target).expect("copied");
            let changed =
                std::fs::metadata(root().join(file)).and_then(|metadata| metadata.modified());
            let to = std::fs::File::options().write(true).open(&target).expect("a file");
            to.set_modified(changed.expect("a time")).expect("ours");
            copied += 1;
        }
        assert!(copied > 0, "COPY {source}: the context has no such file");
    }
}

/// The instructions of the stage with that number.
fn stage(number: usize) -> Vec<Instruction> {
    let mut stages = 0;
    let all = dockerfile().instructions.into_iter();
    let of_it = all.filter(|instruction| {
        stages += usize::from(matches!(instruction, Instruction::From(_)));
        stages == number
    });
    of_it.collect()
}

/// A `RUN` of the build stage in a folder that stands for its root.
fn run(command: &str, place: &Path, env: &BTreeMap<String, String>) -> Output {
    let command = command.replace(" /image", &format!(" {}/image", place.display()));
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = Command::new("sh");
    shell.args(["-ec", &command]).current_dir(place.join("src"));
    // What cargo tells tests would make it build dependencies anew, now and the
    // next time without.
    shell.env_remove("OUT_DIR");
    for (name, _) in std::env::vars_os() {
        let of_cargo = name.to_str().and_then(|name| name.strip_prefix("CARGO_"));
        let about_a_test = ["MANIFEST_", "PKG_", "BIN_", "CRATE_", "PRIMARY_", "TARGET_TMPDIR"];
        if of_cargo.is_some_and(|path| about_a_test.iter().any(|start| path.starts_with(start))) {
            shell.env_remove(&name);
        }
    }
    shell.env("REAL_PATH", &path).envs(env);
    shell.env("PATH", format!("{}:{path}", place.display()));
    let output = shell.output().expect("sh");
    assert!(output.status.success(), "RUN {command}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Everything of the build stage up to the program.
#[test]
fn what_the_image_build_sees_is_enough_to_compile_the_program() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // The same folder each time: what is compiled there lies in the target
    // folder, by this path.
    let place = scratch.join("image-build");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(place.join("src")).expect("a folder");
    write_program(&place.join("cargo"), CARGO);
    let mut files = Vec::new();
    let patterns = patterns();
    context("", &patterns, &mut files);
    let mut env = BTreeMap::from(
        [
            ("REAL_CARGO", env!("CARGO").to_owned()),
            ("SAID", place.join("said").display().to_string()),
            ("CARGO_TARGET_DIR", scratch.parent().expect("target").display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for instruction in stage(1) {
        match instruction {
            Instruction::Copy(instruction) => copy(&instruction, &files, &place.join("src")),
            Instruction::Arg(arg) => {
                env.insert(
                    arg.name.content,
                    arg.value.map_or_else(String::new, |value| value.content),
                );
            }
            Instruction::Run(command) => {
                let command = command.as_shell().expect("a shell's").to_string();
                if command.contains("cargo") {
                    run(&command, &place, &env);
                }
            }
            Instruction::Misc(misc) if misc.instruction.content == "WORKDIR" => {
                assert_eq!(misc.arguments.to_string().trim(), "/src");
            }
            Instruction::From(_) => {}
            other => panic!("not played here: {other:?}"),
        }
    }
    let said = std::fs::read_to_string(place.join("said")).expect("cargo was run");
    assert_eq!(said, "check --locked --bin claudemesh-broker\n".repeat(2));
    std::fs::remove_dir_all(&place).expect("ours");
}

/// The last stage: its files, and how to run something in it.
struct Image {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    port: u16,
}

impl Image {
    /// As the Dockerfile copies it together.
    fn assemble() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let place = folder.path();
        std::fs::create_dir_all(place.join("src/target/release")).expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, place.join("src/target/release/claudemesh-broker"))
            .expect("a link");
        let commands = stage(1).into_iter().filter_map(|instruction| match instruction {
            Instruction::Run(command) => command.as_shell().map(ToString::to_string),
            _ => None,
        });
        for command in commands.filter(|command| !command.contains("cargo")) {
            run(&command, place, &BTreeMap::new());
        }
        let mut env = Vec::new();
        let mut user = String::new();
        for instruction in stage(2) {
            match instruction {
                Instruction::Copy(copy) => {
                    let flag = |name: &str| {
                        let flag = copy.flags.iter().find(|flag| flag.name.content == name);
                        flag.map(|flag| flag.value.content.clone())
                    };
                    assert_eq!(flag("from").as_deref(), Some("build"));
                    let source = copy.sources[0].content.trim_start_matches('/');
                    let target =
                        place.join("root").join(copy.destination.content.trim_start_matches('/'));
                    std::fs::create_dir_all(&target).expect("a folder");
                    let copied =
                        Command::new("cp").arg("-rT").arg(place.join(source)).arg(&target).status();
                    assert!(copied.expect("cp").success(), "{source}");
                    if let Some(owner) = flag("chown") {
                        let given =
                            Command::new("chown").arg("-R").arg(owner).arg(&target).status();
                        assert!(given.expect("chown").success());
                    }
                }
                Instruction::Env(vars) => env.extend(
                    vars.vars.into_iter().map(|var| (var.key.content, var.value.to_string())),
                ),
                Instruction::Misc(misc) if misc.instruction.content == "USER" => {
                    user = misc.arguments.to_string().trim().to_owned();
                }
                _ => {}
            }
        }
        assert_eq!(user, format!("{USER}:{USER}"));
        Self { folder, env, port: free_port() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command
            .arg(format!("--userspec={USER}:{USER}"))
            .arg("--groups=")
            .arg(self.folder.path().join("root"))
            .args(words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // Not the usual ones, which others on this machine may have.
            .env("BROKER_BIND", "127.0.0.1")
            .env("BROKER_PORT", self.port.to_string());
        command
    }

    fn runs(&self, words: &[&str]) -> Answer {
        let answer = Answer::of(&self.command(words).output().expect("chroot"), words);
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
        answer
    }

    /// Serves by the image's own command; well by its own check.
    fn serves(&self) {
        let mut serving =
            Printing::start(self.command(&[&words_of("CMD")[..], &["--json"]].concat()));
        assert_eq!(serving.next()["port"], self.port);
        let check = words_of("HEALTHCHECK");
        ask_until("the image's check is content", || {
            self.command(&check).output().is_ok_and(|output| output.status.success())
        });
        self.runs(&["claudemesh-broker", "health", "--live"]);
        serving.signal(rustix::process::Signal::TERM);
        assert!(serving.wait().success());
        assert!(!self.command(&check).output().expect("chroot").status.success(), "it is gone");
    }
}

/// The words of the last stage's `CMD`, or those of its `HEALTHCHECK`.
fn words_of(wanted: &str) -> Vec<&'static str> {
    let words = stage(2).into_iter().find_map(|instruction| match instruction {
        Instruction::Cmd(cmd) if wanted == "CMD" => {
            let list = cmd.into_exec().expect("a list");
            Some(list.elements.into_iter().map(|element| element.content).collect::<Vec<_>>())
        }
        Instruction::Misc(misc) if misc.instruction.content == wanted => {
            let text = misc.arguments.to_string();
            serde_json::from_str(text.split_once("CMD").expect("a command").1.trim()).ok()
        }
        _ => None,
    });
    words.expect(wanted).into_iter().map(|word| &*word.leak()).collect()
}

/// Whether this may change its root; said where it may not.
fn may_chroot() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not run: only root may run something in another root");
    }
    is_root
}

#[test]
fn the_last_stage_runs_alone_in_an_empty_root_as_its_user() {
    if !may_chroot() {
        return;
    }
    let image = Image::assemble();
    let entries = std::fs::read_dir(image.folder.path().join("root")).expect("a root");
    let names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(
        names.iter().all(|name| ["usr", "lib", "lib64", "data"].iter().any(|known| name == known)),
        "{names:?}"
    );
    image.runs(&["claudemesh-broker", "migrate"]);
    image.runs(&["claudemesh-broker", "migrate", "--check"]);
    image.runs(&["claudemesh-broker", "doctor"]);
    image.runs(&["claudemesh-broker", "mesh", "create", "team"]);
    image.runs(&["claudemesh-broker", "invite", "create", "team"]);
    image.serves();
    let kept =
        std::fs::metadata(image.folder.path().join("root/data/broker.db")).expect("a database");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&kept), USER);
}

#[tokio::test]
async fn on_a_root_that_cannot_be_written_it_serves_a_cluster() {
    if !may_chroot() {
        return;
    }
    let mut image = Image::assemble();
    // As a container with a read-only root has it.
    let data = image.folder.path().join("root/data");
    std::os::unix::fs::chown(&data, Some(0), Some(0)).expect("root's");
    let redis = PrivateRedis::start();
    let database = PrivatePostgres::shared().empty_database().await;
    image.env.push(("DATABASE_URL".to_owned(), database));
    image.env.push(("REDIS_URL".to_owned(), redis.url().expose().to_owned()));
    image.runs(&["claudemesh-broker", "migrate"]);
    image.runs(&["claudemesh-broker", "doctor"]);
    image.serves();
    // The owner's key cannot be kept there, and what is said next leads on.
    let made = image.runs(&["claudemesh-broker", "mesh", "create", "team"]);
    assert!(made.err.contains("was not kept"), "{made:?}");
    assert!(made.out.contains("invite create team --owner-key -"), "{made:?}");
    let made = image.runs(&["claudemesh-broker", "mesh", "create", "crew", "--json"]).object();
    let key = image.folder.path().join("key");
    std::fs::write(&key, text(&made["ownerSecretKey"])).expect("a file");
    let words = ["claudemesh-broker", "invite", "create", "crew", "--owner-key", "-"];
    let mut invite = image.command(&words);
    invite.stdin(std::fs::File::open(&key).expect("a file"));
    let invite = Answer::of(&invite.output().expect("chroot"), &words);
    assert!(invite.out.contains("ic://join/"), "{invite:?}");
}
