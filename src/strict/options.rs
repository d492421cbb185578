/// The setters of options whose field `strict` is a [`Settings`](super::Settings).
macro_rules! strict_options {
    () => {
        /// Sets for how long a strict write whose answer was lost is sent again before its outcome counts as
        /// unknown. Default: 5 s, from the call; at most 30 min.
        ///
        /// A batch of several requests has this time for each of them, and ends with the first one that is not
        /// answered: the requests after it are not sent.
        ///
        /// Until then it fails as [`NotApplied`](crate::DistkitError::NotApplied) if nothing was sent, and else is
        /// applied once and answered. After it the call fails as
        /// [`OutcomeUnknown`](crate::DistkitError::OutcomeUnknown): it was applied once, or not at all.
        pub fn unknown_after(mut self, after: std::time::Duration) -> Self {
            self.strict.unknown_after = Some(after);
            self
        }

        /// Sends strict writes one time and without a guard: a lost answer leaves their outcome unknown at once. It
        /// spares the store a record for each request.
        ///
        /// How long a call waits for an answer is up to the client's own time-outs then.
        ///
        /// Over a connection that sends commands again by itself, such as a cluster's, the guard stays.
        pub fn unguarded(mut self) -> Self {
            self.strict.unknown_after = None;
            self
        }

        /// Sets how many strict additions of one runtime may wait to be sent. Default: 100 000. Those under tokens are
        /// counted apart.
        ///
        /// One more fails at once as [`NotApplied`](crate::DistkitError::NotApplied).
        pub fn max_waiting_calls(mut self, limit: usize) -> Self {
            self.strict.max_waiting = limit;
            self
        }
    };
}
pub(crate) use strict_options;
