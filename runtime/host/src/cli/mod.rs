//! The command line: noun, verb, `--json` everywhere.
//!
//! Owns arguments, exit codes and what is printed; decides nothing about records.

mod advise;
mod compare;
mod config;
mod demo;
mod dry_run;
mod emulate;
mod generate;
mod link;
mod map;
mod map_catalogue;
mod map_refresh;
mod map_versions;
mod output;
mod plugin;
mod plugin_rows;
mod retry;
mod run;
mod schemas;
mod session;
mod status;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// All is well.
pub const FINE: u8 = 0;
/// Differences or failed rows.
pub const DIFFERENT: u8 = 1;
/// Usage or configuration.
pub const MISCONFIGURED: u8 = 2;

/// Help is written for this many columns; a wider terminal does not widen it.
const HELP_COLUMNS: usize = 100;

/// Keeps Dynamics 365 Finance & Operations and Dataverse in step, record by record and in both directions.
///
/// Start with `dualwright demo`: it starts both systems as emulators on this machine, fills one with data, copies it
/// to the other through the shipped table maps and a few plugins, edits both sides, and compares them.
#[derive(Debug, Parser)]
#[command(name = "dualwright", version, after_help = EXIT_CODES, max_term_width = HELP_COLUMNS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug, or a filter such as dualwright=debug.
    #[arg(long, global = true, default_value = "warn", value_name = "FILTER")]
    log: String,
}

const EXIT_CODES: &str =
    "Exit codes: 0 all is well; 1 the two sides differ or records failed; 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything in a minute, with nothing else installed.
    Demo(demo::DemoArguments),
    /// Keep the two systems of a configuration in step.
    Run(run::RunArguments),
    /// Run one of the two emulated systems alone.
    Emulate(Box<emulate::EmulateArguments>),
    /// Write rows of an invented company, for the maps of the catalogue.
    Generate(generate::GenerateArguments),
    /// What is behind, what failed, and what was done.
    Status(status::StatusArguments),
    /// Make, test and end the link between two environments.
    #[command(subcommand)]
    Link(link::LinkCommand),
    /// Read, check and keep table maps.
    #[command(subcommand)]
    Map(map::MapCommand),
    /// Say whether a live link serves the purpose, and what will hurt.
    Advise(advise::AdviseArguments),
    /// Look into a plugin, or call it on rows of yours.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// The configuration file itself.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Compare both sides under the maps, and name every difference.
    Compare(compare::CompareArguments),
    /// Try failed records again.
    Retry(retry::RetryArguments),
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = Self::DEFAULT)]
    config: PathBuf,
}

impl ConfigArgument {
    const DEFAULT: &'static str = "dualwright.toml";

    /// What a command line needs to name the same file, with a blank before it.
    fn for_command_line(&self) -> String {
        if self.config.as_os_str() == Self::DEFAULT {
            return String::new();
        }
        format!(" --config {}", self.config.display())
    }
}

/// Parses the process's arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Demo(arguments) => demo::demo(arguments).await,
            Command::Run(arguments) => run::run(arguments).await,
            Command::Emulate(arguments) => emulate::emulate(*arguments).await,
            Command::Generate(arguments) => generate::generate(arguments).await,
            Command::Status(arguments) => status::status(arguments).await,
            Command::Config(command) => config::config(&command),
            Command::Link(command) => link::link(command).await,
            Command::Map(command) => map::map(command).await,
            Command::Advise(arguments) => advise::advise(&arguments).await,
            Command::Plugin(command) => plugin::plugin(command).await,
            Command::Compare(arguments) => compare::compare(arguments).await,
            Command::Retry(arguments) => retry::retry(arguments).await,
        }
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(MISCONFIGURED)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What is wrong with the help of a command and of those below it.
    fn flaws_of(command: &clap::Command, path: &str, flaws: &mut Vec<String>) {
        let after = [command.get_after_help(), command.get_after_long_help()];
        for line in
            after.iter().flatten().flat_map(|text| text.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
        {
            if line.chars().count() > HELP_COLUMNS {
                flaws.push(format!("{path}: longer than {HELP_COLUMNS} columns, so it is broken elsewhere: {line}"));
            }
        }
        for argument in command.get_arguments().filter(|argument| argument.get_help().is_none()) {
            flaws.push(format!("{path}: {} is not explained", argument.get_id()));
        }
        for below in command.get_subcommands() {
            flaws_of(below, &format!("{path} {}", below.get_name()), flaws);
        }
    }

    #[test]
    fn help_explains_every_argument_and_fits_its_lines() {
        let mut flaws = Vec::new();
        flaws_of(&Arguments::command(), "dualwright", &mut flaws);
        assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    }
}
