//! `blixt health`: asks `/healthz` or `/readyz` of this machine, for probes of containers without a shell.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::HealthArgs;
use crate::exit::Exit;

/// Whoever takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// `blixt health`
pub fn health(args: &HealthArgs) -> anyhow::Result<Exit> {
    let HealthArgs { listen, ready } = args;
    let path = if *ready { "/readyz" } else { "/healthz" };
    let mut stream = TcpStream::connect_timeout(listen, PATIENCE).with_context(|| {
        format!("nobody serves metrics at {listen}; is --listen the same as that of the process?")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{listen}{path} does not answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let body = body.trim();
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {body}");
    }
    println!("{body}");
    Ok(Exit::Success)
}
