//! The monotonic clock of the process, as readings the store understands.

use crate::time::Instant;

/// A monotonic clock. Copies share its origin, so their readings can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now. It begins at one second, not at zero: a reading of zero means "never" in places.
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::from_ms(1000) + self.origin.elapsed()
    }
}
