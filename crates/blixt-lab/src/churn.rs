//! New connections all the time, each with its moment and its result.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Answer, Failure, Machine, Protocol, connect, exchange};

/// One after the other, until finished or dropped.
#[derive(Debug)]
pub struct Churn {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One new connection, or one datagram from a new port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// When it began.
    pub at: Instant,
    /// Who answered.
    pub result: Result<Answer, Failure>,
}

impl Churn {
    /// Starts; between two attempts it pauses.
    pub fn start(machine: &Machine, protocol: Protocol, to: SocketAddr, pause: Duration) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped, machine) = (Arc::clone(&attempts), Arc::clone(&stop), machine.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                let result = match protocol {
                    Protocol::Tcp => connect(&machine, to).map(|connection| connection.answer),
                    Protocol::Udp => exchange(&machine, to, b"hello"),
                };
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(Attempt { at, result });
                thread::sleep(pause);
            }
        });
        Self { attempts, stop, thread: Some(thread) }
    }

    /// What has been tried up to now.
    pub fn now(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it and returns every attempt.
    pub fn finish(mut self) -> Vec<Attempt> {
        self.end();
        self.now()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.end();
    }
}
