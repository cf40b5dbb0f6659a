use std::rc::Rc;

/// Closes the connection of a stream.
#[derive(Clone)]
pub(crate) struct HangUp {
    close: Rc<dyn Fn()>,
    close_with_client: Rc<dyn Fn()>,
}

impl HangUp {
    pub(crate) fn new(close: impl Fn() + 'static, close_with_client: impl Fn() + 'static) -> Self {
        Self { close: Rc::new(close), close_with_client: Rc::new(close_with_client) }
    }

    /// Closes the connection of a stream that has to end, if its client does not read what was sent before. Otherwise
    /// the stream could not end while the client reads nothing.
    pub(crate) fn unless_client_reads(&self) {
        (self.close)();
    }

    /// Closes the connection as soon as the client has closed its side, while the present answer is sent. The framework
    /// would go on with the answer until it cannot be written.
    pub(crate) fn when_client_leaves(&self) {
        (self.close_with_client)();
    }
}
