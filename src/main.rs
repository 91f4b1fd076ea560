//! The broker as a program: parse, load, start.

use std::process::ExitCode;

use claudemesh_broker::cli;
use claudemesh_broker::command::Cli;
use claudemesh_broker::config::{Config, process_env};
use claudemesh_broker::logging;
use claudemesh_broker::traces::Traces;

fn main() -> ExitCode {
    if let Some(code) = Cli::complete(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let json = cli.json;
    start(cli).unwrap_or_else(|error| cli::report(json, &error))
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(&process_env);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut traces = None;
    if let (true, Ok(config)) = (cli.logs(), &config) {
        traces = Traces::start(config, &process_env, runtime.handle())?;
        let layer = traces.as_ref().map(Traces::layer);
        logging::init(&cli.log_config(&config.log, &process_env), layer)?;
    }
    let code = runtime.block_on(cli.run(config));
    if let Some(traces) = traces {
        traces.shut_down();
    }
    // Whoever pressed Ctrl-C twice does not wait for blocking threads.
    runtime.shutdown_background();
    code
}
