//! The one binary: servers, playground, shell, one-shot verbs, benchmark.
//!
//! The composition root: it reads options, makes what they ask for, and turns the outcome into an exit code. Data go to
//! stdout, everything else to stderr.

mod admin;
#[cfg(feature = "rocksdb")]
mod bench;
mod boundary;
mod cli;
mod context;
mod endpoints;
mod failure;
mod load;
mod node;
mod output;
mod playground;
mod shell;
mod text;
mod verbs;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::runtime::{Builder, Runtime};

use cli::{Cli, Verb};
use context::{Context, note};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "rocksdb")]
    if let Some(Verb::Bench(args)) = &cli.verb {
        return bench::run(args);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                note(&format!("error: {failure}"));
            }
            ExitCode::from(&failure)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, verb } = cli;
    match verb {
        Some(Verb::Data(verb)) => {
            let mut context = Context::new(global);
            finish(runtime()?, |runtime| {
                runtime.block_on(until_interrupted(verb.run(&mut context)))
            })
        }
        Some(Verb::Cluster(verb)) => {
            let mut context = Context::new(global);
            finish(runtime()?, |runtime| {
                runtime.block_on(until_interrupted(verb.run(&mut context)))
            })
        }
        Some(Verb::Store(cli::Store { verb: Some(verb), .. })) => {
            let mut context = Context::new(global);
            finish(runtime()?, |runtime| {
                runtime.block_on(until_interrupted(verbs::store::run(&mut context, verb)))
            })
        }
        Some(Verb::Store(cli::Store { verb: None, options })) => {
            node::shutdown::abort_on_panic();
            finish(runtime()?, |runtime| runtime.block_on(node::store::run(options)))
        }
        Some(Verb::Scheduler(options)) => {
            node::shutdown::abort_on_panic();
            finish(runtime()?, |runtime| runtime.block_on(node::scheduler::run(options)))
        }
        Some(Verb::Config(cli::Config::File(verb))) => node::config::run(verb),
        Some(Verb::Config(cli::Config::Cluster(verb))) => {
            let mut context = Context::new(global);
            finish(runtime()?, |runtime| {
                let work = verbs::cluster_config::run(&mut context, verb);
                runtime.block_on(until_interrupted(work))
            })
        }
        Some(Verb::Playground(playground::Playground { verb: Some(verb), .. })) => {
            finish(runtime()?, |runtime| runtime.block_on(playground::control::run(verb)))
        }
        Some(Verb::Playground(playground::Playground { verb: None, options })) => {
            finish(runtime()?, |runtime| runtime.block_on(playground::run(options, &global)))
        }
        #[cfg(feature = "rocksdb")]
        Some(Verb::Bench(_)) => unreachable!("handled by main"),
        Some(Verb::Shell) => {
            finish(runtime()?, |runtime| shell::run(runtime, Context::new(global)))
        }
        None if std::io::stdin().is_terminal() => {
            finish(runtime()?, |runtime| shell::run(runtime, Context::new(global)))
        }
        None => {
            // Nothing to do, and nobody to talk to.
            let _ = Cli::command().print_help();
            Err(Failure::Usage("a verb is needed where there is no terminal".to_owned()))
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread().enable_all().build().map_err(Failure::io("cannot start threads"))
}

/// A thread that still reads stdin must not hold up the end.
fn finish(
    runtime: Runtime,
    work: impl FnOnce(&Runtime) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let outcome = work(&runtime);
    runtime.shutdown_background();
    outcome
}

async fn until_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}
