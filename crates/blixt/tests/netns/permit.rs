//! Few worlds at a time: each loads programs, and some keep hundreds of connections busy.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const WORLDS: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static RETURNED: Condvar = Condvar::new();

/// The right to have a world; given back when dropped.
pub struct Permit(());

impl Permit {
    pub fn wait() -> Self {
        let mut taken =
            RETURNED.wait_while(lock(), |taken| *taken >= WORLDS).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock() -= 1;
        RETURNED.notify_one();
    }
}

fn lock() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
