//! The log: changes, never packets. For people at a terminal, JSON for machines.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines that pass `filter` to standard error.
///
/// A filter that cannot be understood is said so and replaced: a typing error must not keep a load balancer down.
pub fn init(filter: &str, format: LogFormat) {
    let (filter, rejected) = match filter.parse::<EnvFilter>() {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            registry.with(layer.with_target(false).with_ansi(std::io::stderr().is_terminal())).init();
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
    if let Some(error) = rejected {
        tracing::warn!(%error, "the log filter is not understood, logging from level info; write it as `debug` or `blixt=debug`");
    }
}
