//! The machine that was measured on, and how busy it was.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// What a reader needs to judge the numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    date: String,
    processor: String,
    processors: usize,
    memory: String,
    kernel: String,
    load_before: String,
    load_after: String,
    rounds: usize,
}

impl Facts {
    /// Before the first measurement.
    pub fn gather(rounds: usize) -> Self {
        let date = Command::new("date").args(["--utc", "+%F"]).output();
        let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let load = load();
        Self {
            date: date.unwrap_or_default(),
            processor: field("/proc/cpuinfo", "model name"),
            processors: available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            load_before: load.clone(),
            load_after: load,
            rounds,
        }
    }

    /// After the last measurement.
    pub fn end(&mut self) {
        self.load_after = load();
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, processor, processors, memory, kernel, load_before, load_after, rounds } = self;
        writeln!(f, "| | |\n|---|---|")?;
        writeln!(f, "| Date | {date} |")?;
        writeln!(f, "| Processor | {processors} x {processor} |")?;
        writeln!(f, "| Memory | {memory} |")?;
        writeln!(f, "| Kernel | {kernel} |")?;
        writeln!(f, "| Rounds | {rounds} |")?;
        writeln!(f, "| Load average before and after | {load_before}; {load_after} |")
    }
}

/// Of one, five and fifteen minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// `NAME : VALUE`, the first of a file.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let (left, right) = line.split_once(':')?;
        (left.trim() == name).then(|| right.trim().to_owned())
    });
    found.unwrap_or_else(|| "unknown".to_owned())
}
