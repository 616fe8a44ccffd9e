//! Long-lived connections that are never idle: each echoes numbered messages.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::client::parse;
use crate::worker::Worker;
use crate::{Error, Failure, Machine};

/// An echo that takes longer than this is a stall; TCP's first retransmissions come after 0.2 and 0.6 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Busy connections, until they are finished or dropped.
#[derive(Debug)]
pub struct Busy {
    connections: Arc<Mutex<Vec<BusyConnection>>>,
    worker: Worker,
}

/// What one of them has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BusyConnection {
    /// The server's name, once it has said it.
    pub backend: Option<String>,
    /// Messages that came back.
    pub messages: u64,
    /// Longest time a message took to come back.
    pub slowest: Duration,
    /// Why it ended, if it did not end because we wanted.
    pub failure: Option<Failure>,
}

impl Busy {
    /// Opens `count` connections; returns when each has echoed a message or failed. Each sends one message, waits
    /// for its echo, pauses, and begins again.
    pub fn start(machine: &Machine, to: SocketAddr, count: usize, pause: Duration) -> Result<Self, Error> {
        let connections = Arc::new(Mutex::new(vec![BusyConnection::default(); count]));
        let shared = Arc::clone(&connections);
        let worker = Worker::start(machine, async move |stop| {
            let finish = Rc::new(Notify::new());
            let tasks = LocalSet::new();
            let mut set = JoinSet::new();
            for index in 0..count {
                let place = Place { connections: Arc::clone(&shared), index };
                set.spawn_local_on(keep(to, pause, place, Rc::clone(&finish)), &tasks);
            }
            tasks
                .run_until(async {
                    let _ = stop.await;
                    finish.notify_waiters();
                    while set.join_next().await.is_some() {}
                })
                .await;
        })?;
        let busy = Self { connections, worker };
        let deadline = Instant::now() + PATIENCE;
        while busy.now().iter().any(|one| one.messages == 0 && one.failure.is_none())
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(busy)
    }

    /// What they have seen up to now.
    pub fn now(&self) -> Vec<BusyConnection> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets each finish its message, closes them and returns what they have seen.
    pub fn finish(self) -> Vec<BusyConnection> {
        let Self { connections, worker } = self;
        drop(worker);
        let connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.clone()
    }
}

/// The place of one connection among all.
struct Place {
    connections: Arc<Mutex<Vec<BusyConnection>>>,
    index: usize,
}

impl Place {
    fn change(&self, change: impl FnOnce(&mut BusyConnection)) {
        change(&mut self.connections.lock().unwrap_or_else(PoisonError::into_inner)[self.index]);
    }
}

async fn keep(to: SocketAddr, pause: Duration, place: Place, finish: Rc<Notify>) {
    let failure = talk(to, pause, &place, &finish).await.err();
    place.change(|connection| connection.failure = failure);
}

async fn talk(to: SocketAddr, pause: Duration, place: &Place, finish: &Notify) -> Result<(), Failure> {
    let late = |_| Failure::TimedOut;
    let finished = finish.notified();
    tokio::pin!(finished);
    finished.as_mut().enable();
    let stream = timeout(PATIENCE, TcpStream::connect(to)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(PATIENCE, stream.read_line(&mut line)).await.map_err(late)??;
    let answer = parse(&line)?;
    place.change(|connection| connection.backend = Some(answer.backend));
    for number in 1_u64.. {
        let sent = Instant::now();
        stream.write_all(&number.to_be_bytes()).await?;
        let mut echo = [0; 8];
        timeout(PATIENCE, stream.read_exact(&mut echo)).await.map_err(late)??;
        if u64::from_be_bytes(echo) != number {
            return Err(Failure::Garbled);
        }
        place.change(|connection| {
            connection.messages = number;
            connection.slowest = connection.slowest.max(sent.elapsed());
        });
        tokio::select! {
            () = sleep(pause) => {}
            () = &mut finished => break,
        }
    }
    Ok(())
}
