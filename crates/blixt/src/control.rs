//! The control socket of an instance: one line of JSON asks, one line of JSON answers.
//!
//! It is root's (0600, in a directory of 0700). Whoever can open it may ask; nothing can be changed through it.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::exit::{InstanceError, words};

/// A request is a line; nobody needs a longer one.
const LONGEST_REQUEST: u64 = 4096;
/// An instance that does not answer for this long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Everything that `status` shows.
    Status,
    /// The way of one packet.
    Explain {
        /// The packet, as typed.
        packet: String,
    },
}

/// What is answered: JSON, or why not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What was asked for.
    Ok(Box<RawValue>),
    /// Why there is no answer.
    Error(String),
}

/// A request on its way to the run loop.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

impl Reply {
    /// The answer as JSON.
    pub fn from_result<T: Serialize>(result: anyhow::Result<T>) -> Self {
        match result.and_then(|value| Ok(serde_json::value::to_raw_value(&value)?)) {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(words(&error)),
        }
    }
}

/// Makes the socket. One that is left from before is replaced: the instance's lock is ours.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("cannot replace the control socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot make the control socket {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect the control socket {}", path.display()))?;
    Ok(listener)
}

/// Answers connections until the run loop ends.
pub async fn serve(listener: UnixListener, asks: mpsc::Sender<Ask>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asks = asks.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, asks).await {
                        tracing::debug!(%error, "a control connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Asks the instance at `path`.
pub fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> anyhow::Result<T> {
    let stream = UnixStream::connect(path).map_err(|error| not_reached(path, &error))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut reply = String::new();
    let length = (&stream)
        .write_all(&line)
        .and_then(|()| BufReader::new(&stream).read_line(&mut reply))
        .map_err(not_answered)?;
    if length == 0 {
        return Err(not_answered(ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&reply).context("the running instance is of another version; restart it")? {
        Reply::Ok(value) => serde_json::from_str(value.get())
            .context("the running instance is of another version; restart it"),
        Reply::Error(message) => Err(anyhow!(message)),
    }
}

/// Only where nobody listens is there no instance; otherwise there may be one.
fn not_reached(path: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => InstanceError(
            "no instance runs in this network namespace; start one with `blixt run -f DIR`, or look from the \
             namespace that it runs in: `ip netns exec NAME blixt status`"
                .to_owned(),
        )
        .into(),
        ErrorKind::PermissionDenied => {
            anyhow!("may not open the control socket {}; run this as root", path.display())
        }
        _ => anyhow!("cannot open the control socket {}: {error}", path.display()),
    }
}

/// One that ended meanwhile is none any more; otherwise it hangs.
fn not_answered(error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => InstanceError(
            "the instance ended before it answered; its log may say why, `blixt run -f DIR` starts it again"
                .to_owned(),
        )
        .into(),
        _ => anyhow::Error::from(error).context("the running instance does not answer; its log may say why"),
    }
}

async fn answer(stream: tokio::net::UnixStream, asks: mpsc::Sender<Ask>) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LONGEST_REQUEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(request) => {
                let (reply, answer) = oneshot::channel();
                asks.send(Ask { request, reply }).await?;
                answer.await?
            }
            Err(error) => Reply::Error(format!("the request is not understood: {error}")),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_over_a_socket_that_only_its_owner_may_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (asks, mut requests) = mpsc::channel(1);
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::spawn(serve(listener, asks));
        let client = tokio::task::spawn_blocking(move || {
            ask::<String>(&path, &Request::Explain { packet: "tcp a > b".into() })
        });
        let Ask { request, reply } = requests.recv().await.unwrap();
        assert_eq!(request, Request::Explain { packet: "tcp a > b".into() });
        reply.send(Reply::from_result(Ok("there"))).unwrap();
        assert_eq!(client.await.unwrap().unwrap(), "there");
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_with_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (asks, _requests) = mpsc::channel(1);
        tokio::spawn(serve(bind(&path).unwrap(), asks));
        let line = tokio::task::spawn_blocking(move || {
            let stream = UnixStream::connect(path).unwrap();
            (&stream).write_all(b"flush everything\n").unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            line
        });
        assert!(line.await.unwrap().starts_with(r#"{"error":"the request is not understood"#));
    }

    #[test]
    fn without_an_instance_the_next_step_is_named() {
        let error = ask::<String>(Path::new("/nowhere/control.sock"), &Request::Status).unwrap_err();
        assert!(error.downcast_ref::<InstanceError>().is_some());
        assert!(error.to_string().contains("blixt run -f DIR"));
    }
}
