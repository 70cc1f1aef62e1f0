//! One-shot replies.
//!
//! Whoever asks hands over a [`Reply`]; whoever knows the answer consumes it. The rule "a proposal that will never apply is
//! answered at once" rests on the type: a reply dropped on any path (lost leadership, a destroyed peer, a closed queue)
//! answers [`RegionError::StaleCommand`] by itself, so no caller is ever left to its timeout.
//!
//! The function inside runs on the thread that answers (the apply thread, mostly) and must not block.

use crate::error::RegionError;

/// What a reply runs: called exactly once.
type Answer<T> = Box<dyn FnOnce(Result<T, RegionError>) + Send>;

/// The obligation to answer one request, exactly once.
pub struct Reply<T> {
    /// `None` once answered.
    answer: Option<Answer<T>>,
}

impl<T> Reply<T> {
    /// A reply that runs `answer` with the outcome.
    pub fn new(answer: impl FnOnce(Result<T, RegionError>) + Send + 'static) -> Reply<T> {
        Reply { answer: Some(Box::new(answer)) }
    }

    /// A reply nobody waits for.
    pub fn ignored() -> Reply<T> {
        Reply { answer: None }
    }

    /// Answers.
    pub fn send(mut self, outcome: Result<T, RegionError>) {
        if let Some(answer) = self.answer.take() {
            answer(outcome);
        }
    }

    /// Answers with an error.
    pub fn fail(self, error: RegionError) {
        self.send(Err(error));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer(Err(RegionError::StaleCommand));
        }
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("awaited", &self.answer.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn reply() -> (Reply<u32>, Receiver<Result<u32, RegionError>>) {
        let (sender, receiver) = channel();
        (Reply::new(move |outcome| sender.send(outcome).expect("receiver lives")), receiver)
    }

    #[test]
    fn an_answer_arrives_once() {
        let (reply, receiver) = reply();
        reply.send(Ok(7));
        assert!(matches!(receiver.try_recv(), Ok(Ok(7))));
        assert!(receiver.try_recv().is_err(), "answering consumes; dropping adds nothing");
    }

    #[test]
    fn a_dropped_reply_says_that_the_command_is_stale() {
        let (reply, receiver) = reply();
        drop(reply);
        assert!(matches!(receiver.try_recv(), Ok(Err(RegionError::StaleCommand))));
    }
}
