//! The help texts: the commands by what one wants, and examples for each.

use clap::Command;

/// The commands as `--help` groups them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Run it", &["serve", "demo", "cluster", "config", "doctor", "health", "migrate"]),
    ("Say who may talk", &["mesh", "invite", "member", "account"]),
    ("Look inside", &["top", "audit", "queue"]),
    ("Talk", &["peer", "claude"]),
    ("Measure", &["bench"]),
    ("Shell", &["completions"]),
];

pub(super) const ROOT: &str = "\
First steps:
  claudemesh-broker demo                        see it work, in five seconds
  claudemesh-broker                             serve on port 7900; nothing to configure
  claudemesh-broker mesh create team            in another terminal: a mesh, and its owner's key
  claudemesh-broker invite create team          a link that lets a peer join
  claudemesh-broker peer join <link> --name me  be that peer
  claudemesh-broker peer listen                 see what arrives
  claudemesh-broker claude install              be that peer in Claude Code, too

Settings come from the environment; `claudemesh-broker config` lists them.
`claudemesh-broker <command> --help` shows examples for each command.";

pub(super) const SERVE: &str = "\
Examples:
  claudemesh-broker serve
      On [::]:7900, with SQLite in the platform's data folder.
  BROKER_PORT=8080 CLAUDEMESH_DATA_DIR=/srv/mesh claudemesh-broker serve
      On another port, with the data elsewhere.
  DATABASE_URL=postgres://user:password@host/db claudemesh-broker serve
      With the data in Postgres; with REDIS_URL too it is one node of a cluster.

Ctrl-C, SIGTERM or SIGHUP sends the peers away in order; a second Ctrl-C stops at
once.
With --json it prints one object when it listens, and nothing after it.";

pub(super) const DEMO: &str = "\
Examples:
  claudemesh-broker demo
  claudemesh-broker demo --json

It takes a free port and a temporary folder, and leaves nothing behind.";

pub(super) const CLUSTER: &str = "\
Examples:
  claudemesh-broker cluster up
      Three nodes on ports 7900 to 7902, until Ctrl-C.
  claudemesh-broker cluster up --nodes 5 --port 8000 --dir /srv/mesh
  LEASE_GRACE_SECONDS=5 claudemesh-broker cluster up     # settings go to every node
  claudemesh-broker cluster up --json                    # one object when all of it runs
  claudemesh-broker cluster down                         # from another terminal

It needs the packages of Postgres and of Redis or Valkey, and runs servers of its own.
What dies is started again; `kill -9` a node, or Redis, and watch the peers come back.
Postgres's data stays in the folder and is there again at the next start.";

pub(super) const CONFIG: &str = "\
Examples:
  claudemesh-broker config
  BROKER_PORT=http claudemesh-broker config   # says what is wrong, exit code 2
  claudemesh-broker config --json | jq -r '.settings[] | select(.source == \"environment\") | .name'";

pub(super) const DOCTOR: &str = "\
Examples:
  claudemesh-broker doctor
  claudemesh-broker doctor --json | jq '.checks[] | select(.status != \"ok\")'

Run it with the environment that the broker gets. Exit code 1 when a check fails.";

pub(super) const HEALTH: &str = "\
Examples:
  claudemesh-broker health
  claudemesh-broker health --live
  claudemesh-broker health --url https://mesh.example.org

For the health checks of images and services: it needs no other program. Without --live
a node that drains, or has lost its database, is not well.";

pub(super) const MIGRATE: &str = "\
Examples:
  claudemesh-broker migrate
  claudemesh-broker migrate --check   # exit code 1 when something is pending; runs nothing

The broker migrates by itself when it starts; this is for doing it before a deploy.";

pub(super) const MESH: &str = "\
Examples:
  claudemesh-broker mesh create team --name 'The team'
  claudemesh-broker mesh create team --json | jq -r .ownerSecretKey
  claudemesh-broker mesh list
  claudemesh-broker mesh show team
  claudemesh-broker mesh set team --certified required
  claudemesh-broker mesh archive team";

pub(super) const INVITE: &str = "\
Examples:
  claudemesh-broker invite create team
  claudemesh-broker invite create team --role admin --expires-in 1h
  claudemesh-broker invite create team --max-uses 20 --expires-in 30d --json | jq -r .link
  claudemesh-broker invite create team --uncertified    for `claudemesh join`
  claudemesh-broker invite list team
  claudemesh-broker invite revoke ic://join/eyJ2Ijox...";

pub(super) const MEMBER: &str = "\
A member is named by its name, its id, its key, or the beginning of its key.

Examples:
  claudemesh-broker member list team
  claudemesh-broker member ban team mallory
  claudemesh-broker member unban team mallory
  claudemesh-broker member role team ada admin
  claudemesh-broker member grant team ada bob dm,read    # what bob may do to ada
  claudemesh-broker member grant team ada bob none       # ada hears nothing from bob
  claudemesh-broker member grant team ada bob default

A broker that is running obeys within a second.";

pub(super) const ACCOUNT: &str = "\
Examples:
  claudemesh-broker account create Ada --email ada@example.org
      Shows the key that she signs in by, once.
  claudemesh-broker account list
  claudemesh-broker account token Ada            # to paste into `claudemesh login`
  claudemesh-broker account token Ada --sync     # to paste into `claudemesh sync`
  claudemesh-broker account revoke Ada

An account makes and finds meshes from the command line of claudemesh, if the broker
runs with ACCOUNTS=on. A broker that is running obeys within a second.";

pub(super) const AUDIT: &str = "\
Examples:
  claudemesh-broker audit tail team -n 50
  claudemesh-broker audit tail team --follow --json   # one JSON object per line
  claudemesh-broker audit verify team                 # exit code 1 when a row was tampered with
  claudemesh-broker audit export team --out team.jsonl  # for tools/verify-audit.py, too
  claudemesh-broker audit key --new /etc/claudemesh/audit.key
  claudemesh-broker audit anchor team --json >> /mnt/elsewhere/anchors.jsonl
  claudemesh-broker audit verify team --anchor /mnt/elsewhere/anchors.jsonl --key <public key>
  claudemesh-broker audit verify team --at 4711 --head <hash>

A chain alone shows no more than that no row was changed by itself, and what else the
database has only what was cut off without thinking of that. Anchors that are kept elsewhere
show whether the newest rows were cut off, or all of it was written anew; signed ones
(AUDIT_KEY), whether they are yours.";

pub(super) const QUEUE: &str = "\
Examples:
  claudemesh-broker queue show team
  claudemesh-broker queue show team --json | jq '.messages | length'

It shows who waits for what since when; the messages themselves nobody here can read.";

pub(super) const TOP: &str = "\
Examples:
  ADMIN_TOKEN=... claudemesh-broker top
      The broker on this machine; the token is one of those that it was started with.
  claudemesh-broker top --url https://mesh.example.org --token-file ~/.mesh-token
  claudemesh-broker top --once --mesh team
      Nodes and meshes as they are now, and who is in that mesh.
  claudemesh-broker top --once --json | jq '.nodes[] | select(.state != \"ready\")'
  claudemesh-broker top --json          # one JSON object per second

The broker shows this only if it runs with ADMIN_TOKEN set.";

pub(super) const PEER: &str = "\
Examples:
  claudemesh-broker peer join ic://join/eyJ2Ijox... --name ada
  claudemesh-broker peer listen
  claudemesh-broker peer send bob 'are you there?'
  claudemesh-broker peer send '@all' 'lunch'
  claudemesh-broker peer list
  claudemesh-broker peer members         # and whose keys are proven
  claudemesh-broker peer verify bob      # a number to compare; --accept takes a new key
  claudemesh-broker peer forget bob
  claudemesh-broker peer status dnd
  claudemesh-broker peer mcp list
  claudemesh-broker peer mcp call files read '{\"path\": \"a.txt\"}'
  claudemesh-broker peer file get bob notes/plan.md -o plan.md
  claudemesh-broker peer state set build '{\"ok\": true}' --if-version 3
  claudemesh-broker peer memory add 'the build uses bun' --tag tooling
  claudemesh-broker peer memory find builds
  claudemesh-broker peer context share 'on the login page' --file src/login.rs
  claudemesh-broker peer skill share deploy deploy.md --description 'how we deploy'
  claudemesh-broker peer task create 'fix the login' --tag ui
  claudemesh-broker peer task claim 3fa9c1d2 --lease 15m      # an id's beginning is enough
  claudemesh-broker peer task watch
  claudemesh-broker peer schedule add bob 'lunch?' --in 2h
  claudemesh-broker peer schedule add '@all' 'stand-up' --cron '0 9 * * *' --timezone Europe/Berlin
  claudemesh-broker peer vault set TOKEN - < token.txt        # sealed: the broker cannot read it
  claudemesh-broker peer info                                 # the mesh as a whole";

pub(super) const CLAUDE: &str = "\
Examples:
  claudemesh-broker peer join ic://join/eyJ2Ijox... --name ada
      Join once; the sessions of this user are that peer, too.
  claudemesh-broker claude install
      Tell Claude Code of the server and the hooks; with --codex, Codex. It says what it
      changed, and changes nothing that is not ours.
  claudemesh-broker claude launch ada -- 'fix the build'
      Start a session as that peer, which is woken when mail comes.
  claudemesh-broker claude doctor
      What keeps messages from a session's model, and what to do; exit code 1 when a
      check fails.
  claudemesh-broker claude uninstall
      Take away what `install` put in.

`hook` is called by the host of a session, at each of its events, and always ends with 0.";

pub(super) const BENCH: &str = "\
Examples:
  claudemesh-broker bench direct
      100 peers send 1000 messages each, through a broker started for it.
  claudemesh-broker bench direct --floor --report direct.html
      The same in turns with the plainest relay there can be, and the ratio of the two.
  claudemesh-broker bench direct --rate 1000 --messages 300 --peers 100
      At a fixed rate: what matters then is the latency.
  claudemesh-broker bench fanout --receivers 1000 --json | jq .perSecond
  claudemesh-broker bench idle --sockets 10000
  claudemesh-broker bench surface --state channel --state busy-now
      How long a model waits for a message, with a stand-in for the host of its session.
  claudemesh-broker bench direct --url ws://host:7900/ws --invite ic://join/eyJ2Ijox...
  DATABASE_URL=postgres://... REDIS_URL=redis://... claudemesh-broker bench direct --cluster 3

Exit code 1 when anything was lost, doubled, out of order or unreadable.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  echo 'source <(claudemesh-broker completions bash)' >> ~/.bashrc
  echo 'source <(claudemesh-broker completions zsh)' >> ~/.zshrc
  echo 'claudemesh-broker completions fish | source' >> ~/.config/fish/config.fish

Names are completed, too: your peers after --as, who is in the mesh, keys of state and of the
vault, topics, ids of tasks and of what is scheduled. The broker is asked, for a second at most.";

/// `command` with a help page that lists its subcommands by [`GROUPS`].
pub(super) fn grouped(command: Command) -> Command {
    let mut page = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (heading, names) in GROUPS {
        page.push_str(&format!("\n{heading}:\n"));
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            page.push_str(&format!("  {name:<13}{about}\n"));
        }
    }
    page.push_str("\nOptions:\n{options}{after-help}\n");
    command.help_template(page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::command::Cli;

    #[test]
    fn every_command_stands_in_one_group_and_teaches_by_examples() {
        let cli = Cli::command();
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        for command in cli.get_subcommands() {
            let name = command.get_name();
            assert_eq!(listed.iter().filter(|listed| **listed == name).count(), 1, "{name}");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("claudemesh-broker {name}")), "{name}");
            assert!(examples.lines().all(|line| line.len() <= 100), "{name}");
        }
        assert_eq!(listed.len(), cli.get_subcommands().count());
    }

    #[test]
    fn the_page_names_every_command_with_its_meaning() {
        let page = grouped(Cli::command()).render_help().to_string();
        for (heading, names) in GROUPS {
            assert!(page.contains(heading), "{page}");
            for name in *names {
                assert!(page.contains(&format!("\n  {name} ")), "{name} in {page}");
            }
        }
        assert!(page.contains("--json") && page.contains("First steps"), "{page}");
    }
}
