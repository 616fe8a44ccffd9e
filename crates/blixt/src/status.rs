//! `blixt status`: what the running instance does.

pub mod book;
pub mod dir;
pub mod gather;
pub mod table;
pub mod turned;
pub mod untold;
pub mod view;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use blixt_loader::Instance;

use self::view::View;
use crate::cli::{StatusArgs, StatusOutput};
use crate::control::{self, Request};
use crate::exit::Exit;
use crate::node::runtime_dir::RuntimeDir;

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `blixt status`
pub fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    let StatusArgs { output, watch } = args;
    let socket = RuntimeDir::of(&Instance::current()?).socket();
    let mut stdout = io::stdout();
    loop {
        let view: View = control::ask(&socket, &Request::Status)?;
        let text = render(&view, output)?;
        if watch && stdout.is_terminal() {
            stdout.write_all(CLEAR.as_bytes())?;
        }
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        if !watch {
            return Ok(Exit::Success);
        }
        thread::sleep(PAUSE);
    }
}

fn render(view: &View, output: StatusOutput) -> anyhow::Result<String> {
    Ok(match output {
        StatusOutput::Table => table::render(view, false),
        StatusOutput::Wide => table::render(view, true),
        StatusOutput::Json => serde_json::to_string_pretty(view)? + "\n",
        StatusOutput::Yaml => serde_saphyr::to_string(view)?,
    })
}
