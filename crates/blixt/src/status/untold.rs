//! What has changed since statuses were last told, and when to tell it: the next change may come first, but it does not put
//! them off for ever.

use std::time::{Duration, Instant};

use blixt_core::translate::Touched;

/// Statuses are told this long after something changed: the next change, and the answers to this one, come first.
const DELAY: Duration = Duration::from_millis(50);
/// But not later than this.
const LATEST: Duration = Duration::from_millis(500);

/// Changes that nobody was told of.
#[derive(Debug, Default)]
pub struct Untold {
    touched: Touched,
    /// The first of them and the last.
    marked: Option<(Instant, Instant)>,
}

impl Untold {
    /// Something changed. That nothing was touched says that statuses may follow from something else than objects.
    pub fn mark(&mut self, touched: Touched) {
        self.touched.merge(touched);
        let now = Instant::now();
        let first = self.marked.map_or(now, |(first, _)| first);
        self.marked = Some((first, now));
    }

    /// When it is to be told.
    pub fn due(&self) -> Option<Instant> {
        self.marked.map(|(first, last)| (last + DELAY).min(first + LATEST))
    }

    /// All of it, to be told now.
    pub fn take(&mut self) -> Touched {
        std::mem::take(self).touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_put_the_telling_off_but_not_for_ever() {
        let mut untold = Untold::default();
        assert_eq!(untold.due(), None);
        untold.mark(Touched::default());
        let (first, _) = untold.marked.unwrap();
        assert_eq!(untold.due(), Some(first + DELAY));
        untold.marked = Some((first, first + LATEST));
        assert_eq!(untold.due(), Some(first + LATEST));
        untold.mark(Touched::Everything);
        let (still_first, last) = untold.marked.unwrap();
        assert_eq!((still_first, untold.due()), (first, Some(last + DELAY)));
        assert_eq!((untold.take(), untold.due()), (Touched::Everything, None));
    }
}
