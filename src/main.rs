//! The broker as a program: parse, load, start.

use std::process::ExitCode;

use claudemesh_broker::cli::{self, Cli};
use claudemesh_broker::config::{Config, process_env};
use claudemesh_broker::logging;

fn main() -> ExitCode {
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let json = cli.json;
    start(cli).unwrap_or_else(|error| cli::report(json, &error))
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(&process_env);
    if let Ok(config) = &config {
        logging::init(&cli.log_config(&config.log, &process_env))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(cli.run(config));
    // Whoever pressed Ctrl-C twice does not wait for blocking threads.
    runtime.shutdown_background();
    code
}
